//! Models in several files: the names of the parts, and what their headers must agree on. It reads
//! no file.

use std::path::{Path, PathBuf};

use super::error::SplitFlaw;
use super::value::Metadata;

/// Most parts that a model may have: their number is stored in 16 bits.
const MAX_PARTS: u64 = 65_535;

/// Which part of how many a file says it is. Counted from 0, as in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) no: u64,
    pub(super) count: u64,
}

/// The path of part `part` (from 1) of `count`, given the path of any of them; `None` if the name
/// does not follow `NAME-00001-of-00005.gguf`.
pub fn part_path(path: &Path, part: u64, count: u64) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let stem = name.strip_suffix(&format!("-of-{count:05}.gguf"))?;
    let (prefix, number) = stem.rsplit_once('-')?;
    let digits = number.len() >= 5 && number.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| path.with_file_name(format!("{prefix}-{part:05}-of-{count:05}.gguf")))
}

/// What `metadata` say about the file's place in a split model; `None` for a model in one file.
pub(super) fn part_of(metadata: &Metadata) -> Result<Option<Part>, SplitFlaw> {
    let count = metadata.uint("split.count").unwrap_or(0);
    if count <= 1 {
        return Ok(None);
    }
    if count > MAX_PARTS {
        return Err(SplitFlaw::Key { key: "split.count", value: count });
    }
    let no = metadata.uint("split.no").unwrap_or(0);
    if no >= count {
        return Err(SplitFlaw::Key { key: "split.no", value: no });
    }
    Ok(Some(Part { no, count }))
}

/// Checks that the part with these metadata is `want`.
pub(super) fn check_part(metadata: &Metadata, want: Part) -> Result<(), SplitFlaw> {
    // Some writers leave the count out of all parts but the first.
    let no = metadata.uint("split.no").unwrap_or(0);
    let count = metadata.uint("split.count").unwrap_or(want.count);
    if (no, count) == (want.no, want.count) {
        return Ok(());
    }
    Err(SplitFlaw::Mismatch {
        part: no.saturating_add(1),
        count,
        want: want.no + 1,
        want_count: want.count,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_named_by_number() {
        let any = Path::new("/m/big-q4-00003-of-00005.gguf");
        let first = Some(PathBuf::from("/m/big-q4-00001-of-00005.gguf"));
        assert_eq!(part_path(any, 1, 5), first);
        for (name, count) in
            [("/m/big.gguf", 5), ("/m/x-00003-of-00005.gguf", 6), ("/m/x-3-of-00005.gguf", 5)]
        {
            assert_eq!(part_path(Path::new(name), 1, count), None, "{name}");
        }
    }
}
