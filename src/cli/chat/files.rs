//! Files in a conversation: their names as people type them, and their text for a question. It knows no model.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The largest file that is read. (bytes)
const MAX_FILE: u64 = 64 << 20;

/// A text that goes with the next question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attachment {
    /// The file's name, without its folders.
    pub(super) name: String,
    /// What is in it.
    pub(super) text: String,
    /// Tokens that it takes.
    pub(super) n_tokens: usize,
}

/// The path that was typed: `~` is the home directory, quotes around it and backslashes before spaces are the shell's way.
pub(super) fn path(typed: &str) -> PathBuf {
    let typed = typed.trim();
    for quote in ['"', '\''] {
        let inside = typed.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
        if let Some(inside) = inside.filter(|inside| !inside.is_empty()) {
            return in_home(inside);
        }
    }
    let mut plain = String::with_capacity(typed.len());
    let mut chars = typed.chars().peekable();
    while let Some(c) = chars.next() {
        let escapes = c == '\\' && chars.peek().is_some_and(|&next| !next.is_alphanumeric());
        plain.push(if escapes { chars.next().unwrap_or(c) } else { c });
    }
    in_home(&plain)
}

fn in_home(typed: &str) -> PathBuf {
    let rest = match typed.strip_prefix('~') {
        Some("") => Some(""),
        Some(rest) => rest.strip_prefix('/'),
        None => None,
    };
    match (rest, etcetera::home_dir()) {
        (Some(rest), Ok(home)) => home.join(rest),
        _ => PathBuf::from(typed),
    }
}

/// The text of a file; an error is a sentence for the user.
pub(super) fn text(path: &Path) -> Result<String, String> {
    // What is no file may never end, or never begin.
    let facts = path.metadata().map_err(|error| error.to_string())?;
    if !facts.is_file() {
        return Err("it is not a file".to_owned());
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_FILE {
        return Err("it is larger than 64 MiB".to_owned());
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").map(<[u8]>::to_vec).unwrap_or(bytes);
    let text = String::from_utf8(bytes).map_err(|error| {
        format!("it is not text in UTF-8, at byte {}", error.utf8_error().valid_up_to())
    })?;
    if text.trim().is_empty() {
        return Err("it is empty".to_owned());
    }
    Ok(text)
}

/// A question after the files that belong to it.
pub(super) fn with_files(files: &[Attachment], question: &str) -> String {
    let mut all = String::new();
    for Attachment { name, text, .. } in files {
        // A fence that is longer than any in the text.
        let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
        let fence = "`".repeat(longest.max(2) + 1);
        all += &format!("{name}:\n{fence}\n{}\n{fence}\n\n", text.trim_end_matches('\n'));
    }
    all + question
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_people_type_them() {
        let home = etcetera::home_dir().unwrap();
        for (typed, want) in [
            ("a b.txt", PathBuf::from("a b.txt")),
            ("a\\ b.txt", PathBuf::from("a b.txt")),
            ("'a b.txt'", PathBuf::from("a b.txt")),
            ("~/x.json", home.join("x.json")),
            ("\"~/x y\"", home.join("x y")),
            ("~x", PathBuf::from("~x")),
            ("a~", PathBuf::from("a~")),
        ] {
            assert_eq!(path(typed), want, "{typed}");
        }
    }

    #[test]
    fn only_text_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.txt");
        for (bytes, want) in [
            (&b"Hi\n"[..], Ok("Hi\n")),
            (b"\xef\xbb\xbfHi", Ok("Hi")),
            (b"caf\xe9", Err("UTF-8, at byte 3")),
            (b" \n", Err("empty")),
        ] {
            std::fs::write(&file, bytes).unwrap();
            match (text(&file), want) {
                (Ok(text), Ok(want)) => assert_eq!(text, want),
                (Err(why), Err(want)) => assert!(why.contains(want), "{why}"),
                (got, _) => panic!("{bytes:?}: {got:?}"),
            }
        }
        assert!(text(dir.path()).unwrap_err().contains("not a file"));
        assert!(text(Path::new("/dev/zero")).unwrap_err().contains("not a file"));
        assert!(text(&dir.path().join("none")).unwrap_err().contains("No such file"));
    }

    #[test]
    fn files_come_before_the_question() {
        let file =
            |text: &str| Attachment { name: "a.md".to_owned(), text: text.to_owned(), n_tokens: 1 };
        assert_eq!(with_files(&[], "Why?"), "Why?");
        assert_eq!(with_files(&[file("x\n")], "Why?"), "a.md:\n```\nx\n```\n\nWhy?");
        assert!(with_files(&[file("```\nx\n```")], "Why?").starts_with("a.md:\n````\n"));
    }
}
