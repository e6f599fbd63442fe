//! Where tools keep models, as their variables and their documentation say. It looks at the environment, and into the one or two
//! small files that name another place; it lists no models.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value;

/// A file that names a place is no longer than this. (bytes)
const MAX_POINTER: u64 = 1 << 20;

/// Who keeps models at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A directory that the user named in `AIRRUN_MODELS`.
    Named,
    /// `./models`.
    Here,
    /// The cache of the Hugging Face hub, which llama.cpp and airrun use, too.
    Hub,
    /// Ollama's store.
    Ollama,
    /// LM Studio.
    LmStudio,
    /// llama.cpp's cache as it was before it used the hub's.
    LlamaCpp,
    /// GPT4All.
    #[serde(rename = "gpt4all")]
    Gpt4All,
    /// Jan.
    Jan,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::Named => "AIRRUN_MODELS",
            Kind::Here => "./models",
            Kind::Hub => "Hugging Face",
            Kind::Ollama => "Ollama",
            Kind::LmStudio => "LM Studio",
            Kind::LlamaCpp => "llama.cpp",
            Kind::Gpt4All => "GPT4All",
            Kind::Jan => "Jan",
        })
    }
}

/// A directory with models.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Who keeps them.
    pub kind: Kind,
    /// Where; it need not exist.
    pub dir: PathBuf,
}

/// The value of a variable of the environment.
type Var<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The places that this process's environment names, whether they exist or not.
pub fn here() -> Vec<Place> {
    places(&|name| env::var_os(name), env::home_dir())
}

/// The hub's cache that downloads go to.
pub fn hub_cache() -> Option<PathBuf> {
    hub(&|name| env::var_os(name), env::home_dir().as_ref())
}

/// The file that holds the hub's token.
pub fn hub_token_file() -> Option<PathBuf> {
    let var = |name: &str| path(env::var_os(name));
    let home = || {
        var("HF_HOME").or_else(|| {
            Some(cache(&|n| env::var_os(n), env::home_dir().as_ref())?.join("huggingface"))
        })
    };
    var("HF_TOKEN_PATH").or_else(|| Some(home()?.join("token")))
}

/// The places in the order in which names are looked up: what the user named first.
fn places(var: Var, home: Option<PathBuf>) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    let mut add = |kind, dir: Option<PathBuf>| {
        let place = dir.filter(|d| !d.as_os_str().is_empty()).map(|dir| Place { kind, dir });
        places.extend(place.filter(|new| !places.contains(new)));
    };
    let at_home = |dir: &str| Some(home.as_ref()?.join(dir));
    for dir in env::split_paths(&var("AIRRUN_MODELS").unwrap_or_default()) {
        add(Kind::Named, Some(dir));
    }
    add(Kind::Here, Some(PathBuf::from("models")));
    add(Kind::Hub, hub(var, home.as_ref()));
    // llama.cpp keeps both its layouts where this says.
    for kind in [Kind::Hub, Kind::LlamaCpp] {
        add(kind, path(var("LLAMA_CACHE")));
    }
    add(Kind::LlamaCpp, cache(var, home.as_ref()).map(|d| d.join("llama.cpp")));
    add(Kind::LlamaCpp, at_home("Library/Caches/llama.cpp"));
    match path(var("OLLAMA_MODELS")) {
        Some(dir) => add(Kind::Ollama, Some(dir)),
        None => {
            add(Kind::Ollama, at_home(".ollama/models"));
            // The system's service has a home of its own.
            for dir in [
                "/usr/share/ollama/.ollama/models",
                "/var/lib/ollama/.ollama/models",
                "/var/lib/ollama/models",
                "/var/snap/ollama/common/models",
            ] {
                add(Kind::Ollama, Some(PathBuf::from(dir)));
            }
        }
    }
    for dir in home.as_ref().map(|home| lm_studio(home)).unwrap_or_default() {
        add(Kind::LmStudio, Some(dir));
    }
    let data = path(var("XDG_DATA_HOME")).or_else(|| at_home(".local/share"));
    let config = path(var("XDG_CONFIG_HOME")).or_else(|| at_home(".config"));
    add(Kind::Gpt4All, data.as_ref().map(|d| d.join("nomic.ai/GPT4All")));
    add(Kind::Gpt4All, at_home("Library/Application Support/nomic.ai/GPT4All"));
    add(Kind::Gpt4All, at_home(".cache/gpt4all"));
    for data in [
        config.map(|d| d.join("Jan/data")),
        data.map(|d| d.join("Jan/data")),
        at_home("Library/Application Support/Jan/data"),
        at_home("jan"),
    ] {
        add(Kind::Jan, data.as_ref().map(|d| d.join("llamacpp/models")));
        add(Kind::Jan, data.map(|d| d.join("models")));
    }
    places
}

/// A variable that holds a path.
fn path(value: Option<OsString>) -> Option<PathBuf> {
    value.filter(|v| !v.is_empty()).map(PathBuf::from)
}

fn cache(var: Var, home: Option<&PathBuf>) -> Option<PathBuf> {
    path(var("XDG_CACHE_HOME")).or_else(|| Some(home?.join(".cache")))
}

/// The hub's cache, as its own library finds it.
fn hub(var: Var, home: Option<&PathBuf>) -> Option<PathBuf> {
    path(var("HF_HUB_CACHE"))
        .or_else(|| path(var("HUGGINGFACE_HUB_CACHE")))
        .or_else(|| Some(path(var("HF_HOME"))?.join("hub")))
        .or_else(|| Some(cache(var, home)?.join("huggingface/hub")))
}

/// LM Studio's directories: of its home, which a pointer file may move, and the folder that its settings name.
fn lm_studio(home: &std::path::Path) -> Vec<PathBuf> {
    let moved = read(&home.join(".lmstudio-home-pointer"));
    let moved = moved.map(|text| PathBuf::from(text.trim())).filter(|p| p.is_absolute());
    let mut dirs = Vec::new();
    for own in moved.into_iter().chain([home.join(".lmstudio"), home.join(".cache/lm-studio")]) {
        let settings = read(&own.join("settings.json"));
        let settings = settings.and_then(|text| serde_json::from_str::<Value>(&text).ok());
        let named = settings.as_ref().and_then(|s| s.get("downloadsFolder")?.as_str());
        dirs.extend(named.map(PathBuf::from).filter(|p| p.is_absolute()));
        dirs.push(own.join("models"));
    }
    dirs
}

fn read(file: &std::path::Path) -> Option<String> {
    crate::files::read_text(file, MAX_POINTER).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn with(vars: &[(&str, &str)], home: &str) -> Vec<(Kind, PathBuf)> {
        let var =
            |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(*v));
        places(&var, Some(PathBuf::from(home))).into_iter().map(|p| (p.kind, p.dir)).collect()
    }

    #[test]
    fn places_follow_the_environment() {
        let plain = with(&[], "/h");
        for (kind, dir) in [
            (Kind::Here, "models"),
            (Kind::Hub, "/h/.cache/huggingface/hub"),
            (Kind::Ollama, "/h/.ollama/models"),
            (Kind::Ollama, "/usr/share/ollama/.ollama/models"),
            (Kind::LmStudio, "/h/.lmstudio/models"),
            (Kind::LlamaCpp, "/h/.cache/llama.cpp"),
            (Kind::Gpt4All, "/h/.local/share/nomic.ai/GPT4All"),
            (Kind::Jan, "/h/.config/Jan/data/llamacpp/models"),
        ] {
            assert!(plain.contains(&(kind, PathBuf::from(dir))), "{dir}");
        }
        let set = with(
            &[
                ("AIRRUN_MODELS", "/a:/b"),
                ("HF_HOME", "/hf"),
                ("OLLAMA_MODELS", "/o"),
                ("LLAMA_CACHE", "/l"),
                ("XDG_CACHE_HOME", "/c"),
            ],
            "/h",
        );
        assert_eq!(set[0], (Kind::Named, PathBuf::from("/a")));
        assert_eq!(set[1], (Kind::Named, PathBuf::from("/b")));
        for (kind, dir) in [
            (Kind::Hub, "/hf/hub"),
            (Kind::Hub, "/l"),
            (Kind::LlamaCpp, "/l"),
            (Kind::LlamaCpp, "/c/llama.cpp"),
            (Kind::Ollama, "/o"),
        ] {
            assert!(set.contains(&(kind, PathBuf::from(dir))), "{dir}: {set:?}");
        }
        assert_eq!(set.iter().filter(|p| p.0 == Kind::Ollama).count(), 1);
        let hub = with(&[("HF_HUB_CACHE", "/x"), ("HF_HOME", "/hf")], "/h");
        assert!(hub.contains(&(Kind::Hub, PathBuf::from("/x"))));
    }

    #[test]
    fn lm_studio_may_have_moved() {
        let home = tempfile::tempdir().unwrap();
        let at = |p: &str| home.path().join(p);
        fs::create_dir_all(at("elsewhere")).unwrap();
        fs::write(at(".lmstudio-home-pointer"), format!("{}\n", at("elsewhere").display()))
            .unwrap();
        let settings = r#"{"downloadsFolder":"/big/disk"}"#;
        fs::write(at("elsewhere/settings.json"), settings).unwrap();
        let dirs = lm_studio(home.path());
        assert_eq!(dirs[..2], [PathBuf::from("/big/disk"), at("elsewhere/models")]);
        assert!(dirs.contains(&at(".lmstudio/models")));
    }
}
