//! The models that are on this machine already, whoever downloaded them: their names, their files, what their headers say, and
//! the settings that Ollama keeps beside them. It copies nothing, loads nothing, and knows no network.
//!
//! Reading order: `places` says where tools keep models, `walk` lists files, `ollama` and `hub` read the two stores whose
//! file names say nothing, [`Catalog`] joins all of them; `find` completes a name; `facts` remembers headers; `outlook` guesses
//! how a model will run.

mod facts;
mod find;
mod folder;
pub mod hub;
mod ollama;
mod outlook;
pub mod places;
pub mod quant;
mod template;
mod walk;

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

pub use facts::{Facts, Library};
pub use find::{FindError, PREFERRED};
pub use ollama::Settings;
pub use outlook::{How, Outlook, Room};
pub use places::{Kind, Place};
pub use walk::split as split_name;

use crate::gguf::Purpose;
use crate::units::Bytes;

/// A model on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// What it is called: `llama3.2:1b`, `org/repo:Q4_K_M`, `tiny-chat-q8_0`.
    pub name: String,
    /// Other spellings of the name.
    pub aliases: Vec<String>,
    /// Its file; the first of a split model.
    pub path: PathBuf,
    /// Bytes of all its files.
    pub size: Bytes,
    /// Newest modification of its files, in seconds since 1970.
    pub modified: u64,
    /// Who keeps it.
    pub origin: Kind,
    /// What Ollama keeps beside it.
    pub layers: Option<ollama::Layers>,
}

/// Something that was passed over, for those who ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Where.
    pub path: PathBuf,
    /// Why.
    pub what: String,
}

/// All models that were found.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// In the order of the places, each by name.
    pub models: Vec<Model>,
    /// What was passed over.
    pub notes: Vec<Note>,
}

/// A model that was asked for.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Its file; the first of a split model.
    pub path: PathBuf,
    /// What people call it, where that is not the name of the file.
    pub name: Option<String>,
    /// Its other names.
    pub aliases: Vec<String>,
    /// What the one who keeps it would run it with.
    pub settings: Settings,
}

impl Model {
    /// Its file and settings.
    pub fn found(&self) -> Found {
        let settings = self.layers.as_ref().map(ollama::Layers::settings).unwrap_or_default();
        let (path, name) = (self.path.clone(), Some(self.name.clone()));
        Found { path, name, aliases: self.aliases.clone(), settings }
    }
}

impl Catalog {
    /// Looks into `places`. What cannot be read is noted, and never keeps others from being found.
    pub fn scan(places: &[Place]) -> Catalog {
        let mut catalog = Catalog::default();
        let mut seen = HashSet::new();
        for place in places {
            let Catalog { models, notes } = match place.kind {
                Kind::Ollama => ollama::scan(&place.dir),
                Kind::Hub => hub::scan(&place.dir),
                // The user may name a tool's store as well as a directory of files.
                Kind::Named if ollama::is_store(&place.dir) => ollama::scan(&place.dir),
                Kind::Named if hub::is_cache(&place.dir) => hub::scan(&place.dir),
                _ => folder::scan(place),
            };
            catalog.notes.extend(notes);
            for model in models {
                // Two names of a file are kept where somebody gave both; two ways to one place are not.
                let file = fs::canonicalize(&model.path).unwrap_or_else(|_| model.path.clone());
                if seen.insert((file, model.name.clone())) {
                    catalog.models.push(model);
                }
            }
        }
        catalog
    }

    /// The models that `name` could mean and that write text, by their headers.
    fn writers(&self, name: &str) -> Catalog {
        let models: Vec<Model> = self.beginning(name).into_iter().cloned().collect();
        let facts = Library::open().facts(&models);
        let writes =
            |facts: Result<Facts, String>| facts.is_ok_and(|f| f.purpose == Some(Purpose::Text));
        let models = models.into_iter().zip(facts).filter_map(|(m, f)| writes(f).then_some(m));
        Catalog { models: models.collect(), notes: Vec::new() }
    }

    /// Looks into all places that the environment names.
    pub fn here() -> Catalog {
        Catalog::scan(&places::here())
    }
}

/// The model that `text` means: a path, or a name that begins like that of one model on this machine.
///
/// # Errors
///
/// No model of this name, or several.
pub fn find(text: &Path) -> Result<Found, FindError> {
    if find::is_path(text) {
        return Ok(by_path(text));
    }
    let name = text.to_string_lossy();
    let catalog = Catalog::here();
    let found = match catalog.find(&name) {
        Err(FindError::Ambiguous { .. }) => {
            // What writes no text is a candidate only where nothing else is.
            let writers = catalog.writers(&name);
            if writers.models.is_empty() { &catalog } else { &writers }
                .find(&name)
                .map(Model::found)
        }
        other => other.map(Model::found),
    };
    match found {
        // A directory, for example: whoever opens it says what is wrong.
        Err(FindError::Unknown { .. }) if text.exists() => Ok(by_path(text)),
        found => found,
    }
}

/// The model at `path`. A blob of Ollama's is called what its manifest calls it.
fn by_path(path: &Path) -> Found {
    match ollama::owner_of(path) {
        Some(owner) => Found { path: path.to_owned(), ..owner.found() },
        None => Found { path: path.to_owned(), ..Found::default() },
    }
}
