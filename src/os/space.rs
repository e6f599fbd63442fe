//! How much a disk still holds.

use std::path::Path;

use crate::units::Bytes;

/// The room that is left to this user on the disk of `path`, or of the directory that it would be made in; `None` if the system
/// does not say.
pub fn free(path: &Path) -> Option<Bytes> {
    let path = std::path::absolute(path).ok()?;
    let there = path.ancestors().find(|p| p.exists())?;
    #[cfg(unix)]
    {
        let stat = rustix::fs::statvfs(there).ok()?;
        Some(Bytes(stat.f_bavail.saturating_mul(stat.f_frsize)))
    }
    #[cfg(windows)]
    super::windows::free_space(there).map(Bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_is_to_be_made_has_the_room_of_its_disk() {
        let dir = tempfile::tempdir().unwrap();
        assert!(free(dir.path()).is_some());
        assert!(free(&dir.path().join("no/such/place")).is_some());
    }
}
