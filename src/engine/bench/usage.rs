//! What the system says that this process had the disk read.

use std::fs;

use crate::units::Bytes;

/// Bytes that storage delivered for this process, past the page cache or into it; `None` where the system does not count.
pub(super) fn disk_reads() -> Option<Bytes> {
    let io = fs::read_to_string("/proc/self/io").ok()?;
    number_after(io.lines(), "read_bytes:").map(Bytes)
}

/// The number that follows `name` at the beginning of a line.
fn number_after<'a>(mut lines: impl Iterator<Item = &'a str>, name: &str) -> Option<u64> {
    let rest = lines.find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found() {
        let text = "rchar: 7\nread_bytes: 1234\nwrite_bytes: 0\n";
        assert_eq!(number_after(text.lines(), "read_bytes:"), Some(1234));
        assert_eq!(number_after(text.lines(), "bytes:"), None);
        assert_eq!(number_after("read_bytes: x".lines(), "read_bytes:"), None);
    }
}
