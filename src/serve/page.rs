//! What a browser sees at `/`: a chat, and a live picture of the blocks. Plain files, embedded in the binary as they are;
//! nothing is built and nothing is fetched from elsewhere. It knows nothing of models: the files ask the server as any
//! client would.

/// What the page may do: run and show its own files, and call this server. No text becomes code or markup.
pub(super) const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

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

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const PICTURE: &str = "image/svg+xml";

macro_rules! asset {
    ($path:literal, $file:literal, $kind:expr) => {
        Asset { path: $path, kind: $kind, bytes: include_bytes!(concat!("page/", $file)) }
    };
}

/// All files.
const ASSETS: [Asset; 34] = [
    asset!("/", "index.html", HTML),
    asset!("/assets/style.css", "style.css", STYLE),
    asset!("/assets/prose.css", "prose.css", STYLE),
    asset!("/assets/icon.svg", "icon.svg", PICTURE),
    asset!("/assets/app.js", "app.js", SCRIPT),
    asset!("/assets/view.js", "view.js", SCRIPT),
    asset!("/assets/markdown.js", "markdown.js", SCRIPT),
    asset!("/assets/blocks.js", "blocks.js", SCRIPT),
    asset!("/assets/api.js", "api.js", SCRIPT),
    asset!("/assets/store.js", "store.js", SCRIPT),
    asset!("/assets/answer.js", "answer.js", SCRIPT),
    asset!("/assets/asking.js", "asking.js", SCRIPT),
    asset!("/assets/composer.js", "composer.js", SCRIPT),
    asset!("/assets/conversation.js", "conversation.js", SCRIPT),
    asset!("/assets/chats.js", "chats.js", SCRIPT),
    asset!("/assets/code.js", "code.js", SCRIPT),
    asset!("/assets/edit.js", "edit.js", SCRIPT),
    asset!("/assets/element.js", "element.js", SCRIPT),
    asset!("/assets/experts.js", "experts.js", SCRIPT),
    asset!("/assets/files.js", "files.js", SCRIPT),
    asset!("/assets/key.js", "key.js", SCRIPT),
    asset!("/assets/keys.js", "keys.js", SCRIPT),
    asset!("/assets/live.js", "live.js", SCRIPT),
    asset!("/assets/math.js", "math.js", SCRIPT),
    asset!("/assets/notice.js", "notice.js", SCRIPT),
    asset!("/assets/settings.js", "settings.js", SCRIPT),
    asset!("/assets/size.js", "size.js", SCRIPT),
    asset!("/assets/slots.js", "slots.js", SCRIPT),
    asset!("/assets/theme.js", "theme.js", SCRIPT),
    asset!("/assets/time.js", "time.js", SCRIPT),
    asset!("/assets/tree.js", "tree.js", SCRIPT),
    asset!("/assets/vendor/marked.js", "vendor/marked.js", SCRIPT),
    asset!("/assets/vendor/highlight.js", "vendor/highlight.js", SCRIPT),
    asset!("/assets/vendor/temml.js", "vendor/temml.js", SCRIPT),
];

/// The file at `path`.
pub(super) fn find(path: &str) -> Option<Asset> {
    ASSETS.into_iter().find(|asset| asset.path == path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `text` names between `before` and the next quote.
    fn names<'a>(text: &'a str, before: &str) -> Vec<&'a str> {
        text.split(before).skip(1).filter_map(|rest| rest.split('"').next()).collect()
    }

    #[test]
    fn every_file_that_is_named_is_there() {
        let text = |asset: Asset| std::str::from_utf8(asset.bytes).unwrap();
        let page = text(find("/").unwrap());
        let named = [names(page, "src=\""), names(page, "href=\"/")].concat();
        assert!(named.len() > 3);
        for name in named {
            let path = format!("/{}", name.trim_start_matches('/'));
            assert!(find(&path).is_some(), "index.html names {path}");
        }
        for asset in ASSETS.into_iter().filter(|asset| asset.kind == SCRIPT) {
            let loaded = [names(text(asset), " from \"./"), names(text(asset), "import(\"./")];
            for name in loaded.concat() {
                assert!(
                    find(&format!("/assets/{name}")).is_some(),
                    "{} imports {name}",
                    asset.path
                );
            }
        }
    }

    #[test]
    fn the_page_stays_small() {
        let bytes: usize = ASSETS.into_iter().map(|asset| asset.bytes.len()).sum();
        assert!(bytes < 600_000, "{bytes}");
    }

    #[test]
    fn the_page_keeps_to_its_policy() {
        let page = std::str::from_utf8(find("/").unwrap().bytes).unwrap();
        for inline in ["<script>", "<style", " style=", " onclick=", " onload=", "javascript:"] {
            assert!(!page.contains(inline), "index.html has {inline}");
        }
        for asset in ASSETS {
            let text = std::str::from_utf8(asset.bytes).unwrap();
            // What others wrote may speak of both; the page does not ask for it, and the policy forbids it.
            let vendor = asset.path.contains("/vendor/");
            assert!(vendor || !text.contains("@import"), "{}", asset.path);
            assert!(vendor || !text.contains("innerHTML"), "{}", asset.path);
        }
    }
}
