//! What the system says that this process used: its largest resident set, and what it had the disk read.

use std::fs;

use crate::units::Bytes;

/// The most memory that was resident at any time; `None` where the system does not say.
pub fn peak_rss() -> Option<Bytes> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kib = number_after(status.lines(), "VmHWM:")?;
    Some(Bytes(kib.saturating_mul(1024)))
}

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
        let text = "Name:\tx\nVmHWM:\t   1234 kB\nVmRSS:\t 7 kB\n";
        assert_eq!(number_after(text.lines(), "VmHWM:"), Some(1234));
        assert_eq!(number_after(text.lines(), "VmSwap:"), None);
        assert_eq!(number_after("read_bytes: x".lines(), "read_bytes:"), None);
    }
}
