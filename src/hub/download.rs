//! One file: asked for from where the last try ended, hashed as it comes, checked over its whole length, then named.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};

use sha2::{Digest, Sha256};
use ureq::Body;
use ureq::http::Response;

use super::api::{Failed, Hub, RepoFile};
use super::store::Store;
use super::{Error, Progress, Wanted};

/// What is read and written at a time. (bytes)
const STEP: usize = 1 << 20;
/// A try that brought this much is no failure, however it ended. (bytes)
const PAYS: u64 = 1 << 20;

/// A file under way.
struct Partial<'a> {
    file: &'a RepoFile,
    store: &'a Store,
    out: File,
    /// Bytes that are there, and hashed.
    have: u64,
    hash: Sha256,
    /// Whether some of them came in an earlier run.
    resumed: bool,
    progress: &'a Progress,
}

/// How a try ended that wrote what it could.
enum Ended {
    Complete,
    Cut(Failed),
}

/// Brings `file` into the store, unless it is there.
pub(super) fn fetch(
    hub: &Hub,
    wanted: &Wanted,
    commit: &str,
    file: &RepoFile,
    store: &Store,
    progress: &Progress,
) -> Result<(), Error> {
    if store.has(file) {
        progress.set_done(file.size.0);
        return Ok(());
    }
    store.prepare()?;
    let mut partial = Partial::open(file, store, progress)?;
    let fetched = bring(hub, wanted, commit, &mut partial);
    if fetched.is_err() && partial.have == 0 {
        // Nothing came: there is nothing to go on with.
        drop(std::fs::remove_file(store.incomplete(file)));
    }
    fetched
}

/// Tries until the file is complete, or a failure is believed.
fn bring(hub: &Hub, wanted: &Wanted, commit: &str, partial: &mut Partial) -> Result<(), Error> {
    let (file, store) = (partial.file, partial.store);
    let url = hub.file_url(&wanted.repo, commit, &file.path);
    let what = format!("file '{}'", file.path);
    let mut failures = 0;
    loop {
        let before = partial.have;
        let ended = match partial.have < file.size.0 {
            false => Ended::Complete,
            true => match hub.get(&url, Some(partial.have)) {
                Ok(answer) => partial.take(hub, &url, &wanted.repo, &what, answer)?,
                Err(error) => Ended::Cut(Failed { error: hub.network(&url, &error), wait: None }),
            },
        };
        match ended {
            Ended::Complete => match partial.check() {
                Ok(()) => return store.complete(file),
                // What an earlier run left may be at fault: once more from the beginning.
                Err(_) if partial.resumed => partial.restart()?,
                Err(error) => {
                    partial.restart()?;
                    return Err(error);
                }
            },
            Ended::Cut(failed) => {
                failures =
                    if partial.have - before.min(partial.have) >= PAYS { 1 } else { failures + 1 };
                failed.wait_or_give_up(failures)?;
            }
        }
    }
}

impl<'a> Partial<'a> {
    /// Opens what an earlier run left, and hashes it.
    fn open(
        file: &'a RepoFile,
        store: &'a Store,
        progress: &'a Progress,
    ) -> Result<Partial<'a>, Error> {
        let path = store.incomplete(file);
        let out =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let out = out.map_err(Error::disk(path.clone()))?;
        // A file system without locks is no reason to fail.
        if matches!(out.try_lock(), Err(TryLockError::WouldBlock)) {
            return Err(Error::Busy { path });
        }
        let mut partial =
            Partial { file, store, out, have: 0, hash: Sha256::new(), resumed: false, progress };
        let left = partial.out.metadata().map_err(Error::disk(path.clone()))?.len();
        if left > file.size.0 {
            partial.restart()?;
        } else if left > 0 {
            partial.rehash().map_err(Error::disk(path))?;
            partial.resumed = partial.have > 0;
        }
        Ok(partial)
    }

    /// Hashes what is there.
    fn rehash(&mut self) -> io::Result<()> {
        let mut buf = vec![0; STEP];
        loop {
            let n = self.out.read(&mut buf)?;
            if n == 0 {
                return Ok(());
            }
            self.hash.update(&buf[..n]);
            self.have += n as u64;
            self.progress.set_done(self.have);
        }
    }

    /// Forgets what is there.
    fn restart(&mut self) -> Result<(), Error> {
        let cut = self.out.set_len(0).and_then(|()| self.out.seek(SeekFrom::Start(0)));
        cut.map_err(Error::disk(self.store.incomplete(self.file)))?;
        (self.have, self.hash, self.resumed) = (0, Sha256::new(), false);
        self.progress.set_done(0);
        Ok(())
    }

    /// Takes an answer: the rest of the file, all of it, or a refusal.
    fn take(
        &mut self,
        hub: &Hub,
        url: &str,
        repo: &str,
        what: &str,
        answer: Response<Body>,
    ) -> Result<Ended, Error> {
        let skip = match answer.status().as_u16() {
            206 if starts_at(&answer) == Some(self.have) => 0,
            // The range was ignored: what is there comes again, and is passed over.
            200 => self.have,
            // No such range: what is there is too long, or not of this file.
            206 | 416 => {
                self.restart()?;
                let why = "the server sent another part than was asked for".to_owned();
                let error = Error::Network { url: url.to_owned(), why };
                return Ok(Ended::Cut(Failed { error, wait: None }));
            }
            _ => return hub.refused(url, repo, what, &answer).map(Ended::Cut),
        };
        self.copy(url, answer.into_body().into_reader(), skip)
    }

    /// Writes what comes after the first `skip` bytes.
    fn copy(&mut self, url: &str, mut body: impl Read, mut skip: u64) -> Result<Ended, Error> {
        let mut buf = vec![0; STEP];
        let cut = |why: String| {
            let error = Error::Network { url: url.to_owned(), why };
            Ok(Ended::Cut(Failed { error, wait: None }))
        };
        while self.have < self.file.size.0 {
            let n = match body.read(&mut buf) {
                Ok(0) => {
                    return cut(format!(
                        "the connection ended after {} of {}",
                        self.progress.bytes().0,
                        self.file.size
                    ));
                }
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return cut(format!("the connection was lost: {error}")),
            };
            self.progress.add_fetched(n as u64);
            let passed = usize::try_from(skip).unwrap_or(usize::MAX).min(n);
            skip -= passed as u64;
            // More than was promised is not wanted.
            let room = usize::try_from(self.file.size.0 - self.have).unwrap_or(usize::MAX);
            let new = &buf[passed..n];
            let new = &new[..new.len().min(room)];
            let written = self.out.write_all(new);
            written.map_err(Error::disk(self.store.incomplete(self.file)))?;
            self.hash.update(new);
            self.have += new.len() as u64;
            self.progress.set_done(self.have);
        }
        Ok(Ended::Complete)
    }

    /// Compares the whole with what was promised, and makes it last.
    fn check(&mut self) -> Result<(), Error> {
        if let Some(want) = &self.file.sha256 {
            let found = self.hash.clone().finalize();
            let found: String = found.iter().map(|b| format!("{b:02x}")).collect();
            if found != *want {
                let (file, want) = (self.file.name().to_owned(), want.clone());
                return Err(Error::Damaged { file, want, found });
            }
        }
        self.out.sync_all().map_err(Error::disk(self.store.incomplete(self.file)))
    }
}

/// Where the content of a partial answer begins: `bytes 100-199/200`.
fn starts_at(answer: &Response<Body>) -> Option<u64> {
    let range = answer.headers().get("Content-Range")?.to_str().ok()?;
    range.trim().strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}
