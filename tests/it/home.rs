//! A home directory of its own for the program, so that no test sees what the machine's user has.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Variables that name places with models.
const PLACES: [&str; 11] = [
    "AIRRUN_MODELS",
    "HF_ENDPOINT",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_TOKEN",
    "HF_TOKEN_PATH",
    "HUGGINGFACE_HUB_CACHE",
    "LLAMA_CACHE",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
];

/// The directory.
pub(crate) struct Home(tempfile::TempDir);

impl Home {
    pub(crate) fn new() -> Home {
        Home(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// A path inside.
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.path().join(path)
    }

    /// Writes a file, with the directories that lead to it.
    pub(crate) fn put(&self, path: &str, content: &[u8]) -> PathBuf {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// The program, here.
    pub(crate) fn airrun(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_airrun"));
        for var in PLACES {
            command.env_remove(var);
        }
        command
            .args(args)
            .current_dir(self.path())
            .env("HOME", self.path())
            // The system's own store is nobody's business here.
            .env("OLLAMA_MODELS", self.at(".ollama/models"))
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.airrun(args).output().unwrap()
    }
}

/// A file of the repository's `models` directory.
pub(crate) fn model(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "models", name].iter().collect()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Asserts that it succeeded; returns what is on stdout.
#[track_caller]
pub(crate) fn check_success(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// Asserts that it failed, said nothing on stdout, and said `words` and a hint on stderr.
#[track_caller]
pub(crate) fn check_refused(output: &Output, words: &[&str]) {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(text(&output.stdout), "");
    for word in words.iter().chain(&["airrun: ", "\n\nhint: "]) {
        assert!(stderr.contains(word), "'{word}' is missing in: {stderr}");
    }
}
