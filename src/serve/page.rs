//! What a browser sees at `/`: files embedded in the binary. It knows nothing of models.

/// A file of the page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asset {
    /// Its path: `/`, `/assets/NAME`.
    pub(super) path: &'static str,
    /// Its media type.
    pub(super) kind: &'static str,
    /// Its bytes.
    pub(super) bytes: &'static [u8],
}

/// All files.
const ASSETS: [Asset; 1] = [Asset {
    path: "/",
    kind: "text/html; charset=utf-8",
    bytes: b"<!doctype html><title>airrun</title><p>airrun serves at /v1 and /api.",
}];

/// The file at `path`.
pub(super) fn find(path: &str) -> Option<Asset> {
    ASSETS.into_iter().find(|asset| asset.path == path)
}
