//! Files of our own and of the user's: read without waiting for what is no file, and written completely or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::os::files::{open_without_waiting, usual_permissions};
use crate::os::process::is_running;

/// What a program that was killed left behind is removed when it is so old: on a shared disk, its process may be elsewhere.
const STALE: Duration = Duration::from_secs(3600);

/// Reads a file of at most `most` bytes. A pipe, which may never say anything, is not waited for.
///
/// # Errors
///
/// What the system says; it is no file, or longer.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = open_without_waiting(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut bytes = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is too long"));
    }
    Ok(bytes)
}

/// As [`read`], of a text.
///
/// # Errors
///
/// As [`read`]; it is not UTF-8.
pub fn read_text(path: &Path, most: u64) -> io::Result<String> {
    String::from_utf8(read(path, most)?).map_err(io::Error::other)
}

/// Writes what `fill` writes to `path`: all of it or nothing. A link leads to the file that is written; a file that was there keeps its
/// permissions; a device or a pipe is written to as it is.
///
/// # Errors
///
/// What the system or `fill` says; a file that was there is as it was then.
pub fn write(path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let place = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let there = fs::metadata(&place).ok();
    if there.as_ref().is_some_and(|there| !there.is_file()) {
        return fill(&mut OpenOptions::new().write(true).open(&place)?);
    }
    // A file that may not be written to is not to be replaced either.
    if there.is_some() {
        OpenOptions::new().write(true).open(&place)?;
    }
    sweep(&place);
    let (dir, name) = parts(&place)?;
    let prefix = format!(".{name}.{}.", std::process::id());
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).suffix(SUFFIX);
    if let Some(mode) = usual_permissions() {
        builder.permissions(mode);
    }
    let mut fresh = builder.tempfile_in(dir)?;
    fill(fresh.as_file_mut())?;
    if let Some(there) = there {
        fresh.as_file().set_permissions(there.permissions())?;
    }
    fresh.as_file().sync_all()?;
    fresh.persist(&place)?;
    Ok(())
}

/// Finds out whether [`write()`] could write to `path`; leaves nothing behind.
///
/// # Errors
///
/// What the system says.
pub fn check(path: &Path) -> io::Result<()> {
    let place = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let there = fs::metadata(&place).ok();
    if there.is_some() {
        OpenOptions::new().write(true).open(&place)?;
    }
    if there.is_none_or(|there| there.is_file()) {
        tempfile::tempfile_in(parts(&place)?.0)?;
    }
    Ok(())
}

/// How names end until their files are complete.
const SUFFIX: &str = ".part";

/// The name under which another program writes what is to become `path`.
pub fn part_of(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}{SUFFIX}", std::process::id()));
    path.with_file_name(name)
}

/// Removes what programs that were killed left of `path` beside it.
pub fn sweep(path: &Path) {
    let Ok((dir, name)) = parts(path) else { return };
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let file = entry.file_name();
        let process = file.to_str().and_then(|file| writer_of(file, &name));
        let is_gone = |process: u32| !is_running(process);
        let age = entry
            .metadata()
            .ok()
            .and_then(|meta| SystemTime::now().duration_since(meta.modified().ok()?).ok());
        if process.is_some_and(is_gone) && age.is_some_and(|age| age > STALE) {
            // Somebody else may have been here.
            drop(fs::remove_file(entry.path()));
        }
    }
}

/// The process that writes `file`, if that is to become `name`.
fn writer_of(file: &str, name: &str) -> Option<u32> {
    let rest = file.strip_prefix('.').unwrap_or(file).strip_prefix(name)?.strip_prefix('.')?;
    rest.strip_suffix(SUFFIX)?.split('.').next()?.parse().ok()
}

fn parts(path: &Path) -> io::Result<(&Path, String)> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((dir, name.to_string_lossy().into_owned()))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::io::Write;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn put(path: &Path, text: &str) -> io::Result<()> {
        write(path, |file| file.write_all(text.as_bytes()))
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn files_are_replaced_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("a.json"), dir.path().join("link"));
        put(&file, "one").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        symlink("a.json", &link).unwrap();
        put(&link, "two").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "two");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let failed = write(&file, |out| {
            out.write_all(b"thr")?;
            Err(io::Error::other("full"))
        });
        assert!(failed.is_err() && fs::read_to_string(&file).unwrap() == "two");
        assert_eq!(names(dir.path()), ["a.json", "link"]);
        put(Path::new("/dev/null"), "gone").unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
        assert!(put(&dir.path().join("no/such/place"), "x").is_err());
    }

    #[test]
    fn pipes_are_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        assert!(read(&pipe, 10).is_err() && read(dir.path(), 10).is_err());
        let file = dir.path().join("file");
        put(&file, "12345").unwrap();
        assert_eq!(read_text(&file, 5).unwrap(), "12345");
        assert!(read(&file, 4).is_err());
    }

    #[test]
    fn what_the_killed_left_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let old = SystemTime::now() - STALE * 2;
        let gone = u32::MAX;
        for name in [
            format!(".a.{gone}.xyz.part"),
            format!("a.{gone}.part"),
            format!("a.{}.part", std::process::id()),
            format!("ab.{gone}.part"),
            "a.part".to_owned(),
        ] {
            let file = File::create(dir.path().join(name)).unwrap();
            file.set_modified(old).unwrap();
        }
        File::create(dir.path().join(format!("a.{gone}.new.part"))).unwrap();
        put(&dir.path().join("a"), "x").unwrap();
        let left = names(dir.path());
        assert_eq!(left.len(), 5, "{left:?}");
        assert!(!left.contains(&format!("a.{gone}.part")));
    }
}
