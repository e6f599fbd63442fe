//! One suite over all readers. Files lie in the system's temporary directory; what O_DIRECT refuses there is read buffered,
//! which is a case of its own.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use tempfile::TempDir;

use super::start;
use crate::source::files::PageCache;
use crate::source::layout::layout;
use crate::source::{Caching, Choice, OpenError, ReaderKind, open};
use crate::source::{DIRECT_ALIGN, Extent, HostBuf, Piece, ReadError, Ticket, WeightSource};
use crate::units::Bytes;

const KINDS: [(ReaderKind, PageCache); 4] = [
    (ReaderKind::Uring, PageCache::Avoid),
    (ReaderKind::Pread, PageCache::Avoid),
    (ReaderKind::Buffered, PageCache::Use),
    (ReaderKind::Buffered, PageCache::Avoid),
];

/// Runs `test` for every reader that works here, and says which does not.
#[expect(clippy::print_stderr, reason = "a skipped reader must be seen")]
fn each(paths: &[PathBuf], test: impl Fn(ReaderKind, Arc<dyn WeightSource>)) {
    for (kind, cache) in KINDS {
        match start(paths, kind, cache) {
            Ok(source) => test(kind, source),
            Err(OpenError::Unavailable { kind: ReaderKind::Uring, error }) => {
                eprintln!("skipped: io_uring does not work here: {error}");
            }
            Err(error) => panic!("{kind}: {error}"),
        }
    }
}

/// The byte of a test file at an offset; neighbours, pages and files differ.
fn byte(file: usize, offset: u64) -> u8 {
    let x = (offset + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)
        ^ (file as u64).wrapping_mul(0xABCD_EF12_3456_789B);
    (x >> 37) as u8
}

fn write_file(dir: &Path, file: usize, len: u64) -> PathBuf {
    let path = dir.join(format!("part-{file}"));
    let bytes: Vec<u8> = (0..len).map(|i| byte(file, i)).collect();
    fs::write(&path, bytes).unwrap();
    path
}

/// A directory with one file of `len` bytes.
fn one_file(len: u64) -> (TempDir, Vec<PathBuf>) {
    let dir = tempfile::tempdir().unwrap();
    let path = write_file(dir.path(), 0, len);
    (dir, vec![path])
}

fn extent(offset: u64, len: u64) -> Extent {
    Extent { file: 0, offset, len, dst: 0, need: len }
}

fn ask(source: &dyn WeightSource, extents: &[Extent]) -> Ticket {
    let len = extents.iter().map(|e| e.dst + e.len).max().unwrap_or(0);
    source.request(extents.into(), HostBuf::new(Bytes(len)).unwrap())
}

/// Waits, and compares every needed byte.
fn check(ticket: Ticket, extents: &[Extent]) -> Result<(), ReadError> {
    let done = ticket.wait().expect("the reader lives");
    done.outcome?;
    for e in extents {
        for i in 0..e.need {
            let got = done.buf.as_slice()[(e.dst + i) as usize];
            assert_eq!(got, byte(e.file, e.offset + i), "{e:?} byte {i}");
        }
    }
    Ok(())
}

const LENS: [u64; 3] = [3 << 20, (2 << 20) + 4097, 777_777];

/// Pieces inside the test files: gaps, neighbours, tails, with and without the alignment that a device wants.
fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    let align = prop_oneof![Just(1_u64), Just(32), Just(4096)];
    let one = (0_usize..3, 0_u64..100_000, 1_u64..1_500_000, align);
    prop::collection::vec(one, 1..12).prop_map(|list| {
        let mut at = [0_u64; 3];
        list.into_iter()
            .filter_map(|(file, gap, len, align)| {
                let offset = (at[file] + gap).next_multiple_of(align);
                let len = len.min(LENS[file].checked_sub(offset)?);
                at[file] = offset + len;
                (len > 0).then_some(Piece { file, offset, len })
            })
            .collect()
    })
}

#[test]
fn every_layout_is_read_right() {
    let dir = tempfile::tempdir().unwrap();
    let paths: Vec<_> = (0..3).map(|i| write_file(dir.path(), i, LENS[i])).collect();
    each(&paths, |kind, source| {
        let config = ProptestConfig { cases: 40, failure_persistence: None, ..Default::default() };
        proptest!(config, |(lists in prop::collection::vec(pieces(), 1..4))| {
            // Several requests are in flight at once.
            let asked: Vec<_> = lists.iter().map(|pieces| {
                let l = layout(pieces, 32);
                (ask(source.as_ref(), &l.extents), l.extents)
            }).collect();
            for (ticket, extents) in asked {
                prop_assert!(check(ticket, &extents).is_ok(), "{kind} {extents:?}");
            }
        });
    });
}

#[test]
fn tails_and_odd_places_are_read_right() {
    let len = (5 << 20) + 123;
    let (_dir, paths) = one_file(len);
    let rounded = len.next_multiple_of(DIRECT_ALIGN);
    each(&paths, |kind, source| {
        for e in [
            Extent { file: 0, offset: 0, len: rounded, dst: 0, need: len },
            Extent { file: 0, offset: 4096, len: 4096, dst: 8192, need: 1 },
            Extent { file: 0, offset: len - 1, len: 1, dst: 7, need: 1 },
            Extent { file: 0, offset: 12_345, len: 4 << 20, dst: 3, need: 4 << 20 },
            Extent { file: 0, offset: 0, len: 0, dst: 0, need: 0 },
        ] {
            check(ask(source.as_ref(), &[e]), &[e])
                .unwrap_or_else(|err| panic!("{kind} {e:?}: {err}"));
        }
        check(ask(source.as_ref(), &[]), &[]).unwrap();
    });
}

#[test]
fn wrong_requests_are_refused() {
    let (_dir, paths) = one_file(8192);
    each(&paths, |kind, source| {
        let good = extent(0, 4096);
        for bad in [
            vec![Extent { file: 1, ..good }],
            vec![Extent { need: 4097, ..good }],
            vec![Extent { offset: u64::MAX, ..good }],
            vec![Extent { offset: i64::MAX as u64, ..good }],
            vec![good, good],
            vec![Extent { dst: 4096, ..good }, good],
            vec![Extent { dst: 8192, ..good }],
            vec![Extent { dst: u64::MAX, ..good }],
            vec![Extent { len: u64::MAX, ..good }],
        ] {
            let buf = HostBuf::new(Bytes(8192)).unwrap();
            let done = source.request(bad.clone().into(), buf).wait().unwrap();
            assert!(matches!(done.outcome, Err(ReadError::Invalid { .. })), "{kind} {bad:?}");
        }
        check(ask(source.as_ref(), &[good]), &[good]).unwrap();
    });
}

#[test]
fn a_file_that_ends_early_is_told_and_its_neighbours_still_read() {
    let (_dir, paths) = one_file((2 << 20) + 100);
    each(&paths, |kind, source| {
        for bad in [extent(2 << 20, 4096), extent(0, 8 << 20), extent(1 << 30, 4096)] {
            let got = check(ask(source.as_ref(), &[bad]), &[bad]);
            assert!(matches!(got, Err(ReadError::Truncated { .. })), "{kind} {bad:?}: {got:?}");
        }
        let good = extent(0, 2 << 20);
        check(ask(source.as_ref(), &[good]), &[good]).unwrap();
    });
}

#[test]
fn truncating_and_writing_are_noticed_and_replacing_does_no_harm() {
    for what in ["truncate", "write", "replace"] {
        for (kind, cache) in KINDS {
            let (dir, paths) = one_file(4 << 20);
            let Ok(source) = start(&paths, kind, cache) else { continue };
            let all = extent(0, 4 << 20);
            check(ask(source.as_ref(), &[all]), &[all]).unwrap();
            std::thread::sleep(Duration::from_millis(20)); // the clock of file times is coarse
            let file = OpenOptions::new().write(true).open(&paths[0]).unwrap();
            match what {
                "truncate" => file.set_len(1 << 20).unwrap(),
                "write" => file.write_all_at(b"other", 5000).unwrap(),
                _ => {
                    fs::write(dir.path().join("new"), b"quite another").unwrap();
                    fs::rename(dir.path().join("new"), &paths[0]).unwrap();
                }
            }
            let got = ask(source.as_ref(), &[all]).wait().unwrap().outcome;
            match (what, got) {
                ("truncate", Err(ReadError::Truncated { .. }))
                | ("write", Err(ReadError::Changed { .. }))
                | ("replace", Ok(_)) => {}
                (what, got) => panic!("{kind}, {what}: {got:?}"),
            }
            if what == "replace" {
                check(ask(source.as_ref(), &[all]), &[all]).unwrap();
            }
        }
    }
}

/// The kernel answers EIO for reads of this process's memory where nothing is mapped, as from a broken disk.
#[cfg(target_os = "linux")]
#[test]
fn errors_of_the_system_carry_path_and_offset() {
    let paths = [PathBuf::from("/proc/self/mem")];
    each(&paths, |kind, source| {
        let got = check(ask(source.as_ref(), &[extent(8192, 4096)]), &[]);
        match got {
            Err(ReadError::Io { path, offset: 8192, .. }) => assert_eq!(path, "/proc/self/mem"),
            got => panic!("{kind}: {got:?}"),
        }
    });
}

#[test]
fn cancelling_is_prompt_and_leaves_the_reader_usable() {
    let (_dir, paths) = one_file(16 << 20);
    each(&paths, |kind, source| {
        let all = extent(0, 16 << 20);
        // On a busy machine, everything may have been read before this thread comes to cancel it.
        let some = (0..20).any(|_| {
            let tickets: Vec<_> = (0..40).map(|_| ask(source.as_ref(), &[all])).collect();
            let begin = Instant::now();
            source.cancel();
            let ends: Vec<_> = tickets.into_iter().map(|t| check(t, &[])).collect();
            let fine = |e: &_| matches!(e, Ok(()) | Err(ReadError::Cancelled));
            assert!(ends.iter().all(fine), "{kind}: {ends:?}");
            ends.iter().any(|e| matches!(e, Err(ReadError::Cancelled)))
                && begin.elapsed() < Duration::from_millis(200)
        });
        assert!(some, "{kind}: nothing was cancelled, or not promptly");
        check(ask(source.as_ref(), &[all]), &[all]).unwrap();
    });
}

#[test]
fn many_threads_can_ask_at_once() {
    let (_dir, paths) = one_file(4 << 20);
    each(&paths, |_, source| {
        std::thread::scope(|scope| {
            for t in 0..4_u64 {
                let source = &source;
                scope.spawn(move || {
                    for i in 0..25 {
                        let e = extent((t * 25 + i) * 4096, (1 + i) * 100_000 / 4096 * 4096);
                        check(ask(source.as_ref(), &[e]), &[e]).unwrap();
                    }
                });
            }
        });
    });
}

#[test]
fn dropping_tickets_or_the_source_ends_cleanly() {
    let (_dir, paths) = one_file(8 << 20);
    each(&paths, |kind, source| {
        let all = extent(0, 8 << 20);
        for _ in 0..10 {
            drop(ask(source.as_ref(), &[all]));
        }
        let tickets: Vec<_> = (0..20).map(|_| ask(source.as_ref(), &[all])).collect();
        drop(source);
        for ticket in tickets {
            let got = check(ticket, &[all]);
            assert!(matches!(got, Ok(()) | Err(ReadError::Stopped)), "{kind}: {got:?}");
        }
    });
}

#[cfg(target_os = "linux")]
#[test]
fn no_descriptor_is_left_open() {
    let (_dir, paths) = one_file(8192);
    let ours = || {
        fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|fd| fs::read_link(fd.ok()?.path()).ok())
            .filter(|target| *target == paths[0])
            .count()
    };
    let all = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = all();
    for _ in 0..50 {
        each(&paths, |_, source| {
            check(ask(source.as_ref(), &[extent(0, 8192)]), &[extent(0, 8192)]).unwrap();
        });
    }
    assert_eq!(ours(), 0);
    // Other tests open files at the same time, but not hundreds; a ring and its bell for each round would be.
    assert!(all() < before + 80, "{} descriptors, {before} before", all());
}

#[cfg(target_os = "linux")]
#[test]
#[expect(clippy::print_stderr, reason = "a skipped check must be seen")]
fn the_page_cache_does_not_grow() {
    let (_dir, paths) = one_file(32 << 20);
    File::open(&paths[0]).unwrap().sync_all().unwrap();
    let cached = || {
        let tool =
            std::process::Command::new("fincore").args(["-nbo", "RES"]).arg(&paths[0]).output();
        tool.ok().and_then(|out| String::from_utf8(out.stdout).ok()?.trim().parse::<u64>().ok())
    };
    each(&paths, |kind, source| {
        let file = File::open(&paths[0]).unwrap();
        crate::os::reads::drop_cached(&file, 0, 0);
        let Some(before) = cached() else {
            eprintln!("skipped: fincore is not here");
            return;
        };
        check(ask(source.as_ref(), &[extent(0, 32 << 20)]), &[]).unwrap();
        let after = cached().unwrap();
        let direct = source.describe().contains("O_DIRECT");
        assert!(!direct || after <= before, "{kind}: {before} -> {after} bytes");
    });
}

#[test]
fn the_choice_is_obeyed_and_what_cannot_be_opened_is_told() {
    let (dir, paths) = one_file(4096);
    let e = extent(0, 4096);
    for choice in [
        Choice::default(),
        Choice { cache: Caching::Expect, ..Choice::default() },
        Choice { cache: Caching::Allow, ..Choice::default() },
        Choice { kind: Some(ReaderKind::Pread), ..Choice::default() },
    ] {
        check(ask(open(&paths, choice).unwrap().as_ref(), &[e]), &[e]).unwrap();
    }
    for bad in [dir.path().to_owned(), dir.path().join("nothing"), "/dev/zero".into()] {
        let got = open(std::slice::from_ref(&bad), Choice::default());
        assert!(matches!(got, Err(OpenError::Open { .. })), "{bad:?}: {got:?}");
    }
    assert!(matches!("mmap".parse::<ReaderKind>(), Err(OpenError::Unknown(_))));
    for kind in [ReaderKind::Uring, ReaderKind::Pread, ReaderKind::Buffered] {
        assert_eq!(kind.to_string().parse::<ReaderKind>().unwrap(), kind);
    }
}
