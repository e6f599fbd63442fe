//! The configuration file: its values become defaults of the flags that are called the same, so that the command line's own
//! checks hold for them and a typed flag counts more. It owns where the file is, what its keys mean, and errors that name
//! file and line; it knows no flag by name, but for those that no file can set.

use std::env;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::builder::OsStr as ClapStr;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches};
use etcetera::BaseStrategy;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::cli::args::opposites::{is_opposite, is_opposite_of};
use crate::cli::args::{self, Args};
use crate::cli::exit::Failure;
use crate::files;

/// Names the file; empty for none.
const VARIABLE: &str = "AIRRUN_CONFIG";

/// The longest file that is read. (bytes)
const MAX_FILE: u64 = 1 << 20;

/// Flags that make no sense in a file, by their ids: `prompt` is a number for `plan`, and a text for `run`.
const NOT_HERE: [&str; 4] = ["config", "help", "version", "prompt_flag"];

/// How alike two words are, at least, for one to be proposed for the other; 1 is equal.
const ALIKE: f64 = 0.75;

/// Why there are no arguments.
pub(super) enum Stop {
    /// What was typed is wrong, or asks for help.
    Typed(clap::Error),
    /// The configuration file is wrong.
    File(anyhow::Error),
}

/// A file that was found.
#[derive(Debug)]
pub(super) struct Found {
    /// Where it is.
    pub(super) path: PathBuf,
    text: String,
}

/// The process's arguments, with the file's values as defaults.
pub(super) fn arguments() -> Result<Args, Stop> {
    let typed = args::command().try_get_matches().map_err(Stop::Typed)?;
    let args = Args::from_arg_matches(&typed).map_err(Stop::Typed)?;
    // The doctor is asked when something is wrong, and tells of a wrong file as of anything else.
    if matches!(args.command, args::Command::Doctor(_)) {
        return Ok(args);
    }
    let Some(found) = find(args.config.as_deref()).map_err(Stop::File)? else { return Ok(args) };
    let command = found.apply(args::command(), Some(&typed)).map_err(Stop::File)?;
    let matches = command.try_get_matches().map_err(Stop::Typed)?;
    Args::from_arg_matches(&matches).map_err(Stop::Typed)
}

/// Where the file is looked for when nobody names one.
pub(super) fn usual_path() -> Option<PathBuf> {
    let dirs = etcetera::choose_base_strategy().ok()?;
    Some(dirs.config_dir().join("airrun").join("config.toml"))
}

/// Reads the file that `named` (by a flag) or the environment names, or else the usual one. `None` if there is none.
///
/// # Errors
///
/// A file that was named is not there, or one that is there cannot be read.
pub(super) fn find(named: Option<&Path>) -> anyhow::Result<Option<Found>> {
    let variable = env::var_os(VARIABLE);
    let (path, must_exist) = match (named, variable) {
        (Some(path), _) => (path.to_owned(), true),
        (None, Some(path)) if path.is_empty() => return Ok(None),
        (None, Some(path)) => (PathBuf::from(path), true),
        (None, None) => match usual_path() {
            Some(path) => (path, false),
            None => return Ok(None),
        },
    };
    match read(&path, must_exist) {
        Ok(text) => Ok(Some(Found { path, text })),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !must_exist => Ok(None),
        Err(error) => Err(error).with_context(|| format!("config file '{}'", path.display())),
    }
}

fn read(path: &Path, is_named: bool) -> io::Result<String> {
    // What the user names may be a pipe, which a shell makes of `<(...)`.
    if !is_named {
        return files::read_text(path, MAX_FILE);
    }
    let mut text = String::new();
    File::open(path)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(io::Error::other("it is longer than any configuration"));
    }
    Ok(text)
}

impl Found {
    /// `command` with the file's values as defaults, all of them checked; `typed` says which model's table counts, and which
    /// flags must not be contradicted.
    ///
    /// # Errors
    ///
    /// The file is not TOML, names what is not there, or has a value that a flag refuses.
    pub(super) fn apply(
        &self,
        command: Command,
        typed: Option<&ArgMatches>,
    ) -> anyhow::Result<Command> {
        // Of several errors, the first in the file is the one that the others may come from.
        let (table, errors) = DeTable::parse_recoverable(&self.text);
        let first = errors.iter().min_by_key(|e| e.span().map_or(usize::MAX, |span| span.start));
        if let Some(error) = first {
            return Err(self.wrong(error.span(), error.message().to_owned(), TOML_HINT));
        }
        let mut target = Target { file: self, command, typed };
        let (mut tables, mut models) = (Vec::new(), None);
        for (key, value) in table.get_ref() {
            match value.get_ref() {
                DeValue::Table(inner) if key.get_ref() == "models" => models = Some(inner),
                DeValue::Table(inner) => tables.push((key, inner)),
                _ => target.set(None, key, value)?,
            }
        }
        // What is said of fewer cases counts more, so it comes later.
        for (name, inner) in tables {
            target.set_command(name, inner)?;
        }
        if let Some(models) = models {
            target.set_models(models)?;
        }
        Ok(target.command)
    }

    fn wrong(
        &self,
        span: Option<Range<usize>>,
        why: String,
        hint: impl Into<String>,
    ) -> anyhow::Error {
        let before = span.and_then(|span| self.text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let path = self.path.display();
        Failure::error(format!("config file '{path}', line {line}: {why}"), hint.into())
    }
}

const TOML_HINT: &str = "each line is `name = value`, with text in quotes: ram = \"8G\"";

/// The command line under change.
struct Target<'a> {
    file: &'a Found,
    command: Command,
    typed: Option<&'a ArgMatches>,
}

type Key<'a> = Spanned<std::borrow::Cow<'a, str>>;
type Item<'a> = Spanned<DeValue<'a>>;

impl Target<'_> {
    /// A table with a command's name.
    fn set_command(&mut self, name: &Key<'_>, table: &DeTable<'_>) -> anyhow::Result<()> {
        let names: Vec<&str> = self.command.get_subcommands().map(Command::get_name).collect();
        if !names.contains(&name.get_ref().as_ref()) {
            let why = format!("unknown table '{}'", name.get_ref());
            let hint = nearest(name.get_ref(), names.into_iter().chain(["models"]));
            return Err(self.file.wrong(Some(name.span()), why, hint));
        }
        table.iter().try_for_each(|(key, value)| self.set(Some(name.get_ref()), key, value))
    }

    /// The tables of single models: all are checked, and that of the typed model counts.
    fn set_models(&mut self, models: &DeTable<'_>) -> anyhow::Result<()> {
        let model = self.typed.and_then(typed_model);
        for (name, table) in models {
            let DeValue::Table(table) = table.get_ref() else {
                let why = format!("'{}' is not a table", name.get_ref());
                let hint = "a model's values stand below [models.\"its name\"]";
                return Err(self.file.wrong(Some(name.span()), why, hint));
            };
            let unchanged = self.command.clone();
            table.iter().try_for_each(|(key, value)| self.set(None, key, value))?;
            if !model.as_deref().is_some_and(|model| is_called(model, name.get_ref())) {
                self.command = unchanged;
            }
        }
        Ok(())
    }

    /// Makes `value` the default of the flag `key` of one command, or of all that have it.
    fn set(&mut self, only: Option<&str>, key: &Key<'_>, value: &Item<'_>) -> anyhow::Result<()> {
        let name = key.get_ref().as_ref();
        let is_it = |arg: &Arg| arg.get_long() == Some(name) && belongs_here(arg);
        let global = self.command.get_arguments().find(|arg| is_it(arg)).cloned();
        if let Some(arg) = global {
            let texts = self.texts(&arg, key, value)?;
            if !self.contradicted(&self.command, &arg) {
                self.command = with_default(self.command.clone(), &arg, texts);
            }
            return Ok(());
        }
        let mut known = false;
        let subs: Vec<Command> = self.command.get_subcommands().cloned().collect();
        for sub in subs.iter().filter(|sub| only.is_none_or(|only| only == sub.get_name())) {
            let Some(arg) = sub.get_arguments().find(|arg| is_it(arg)) else { continue };
            known = true;
            let texts = self.texts(arg, key, value)?;
            if !self.contradicted(sub, arg) {
                let change = |sub| with_default(sub, arg, texts);
                self.command = self.command.clone().mut_subcommand(sub.get_name(), change);
            }
        }
        if known {
            return Ok(());
        }
        let flags = subs
            .iter()
            .filter(|sub| only.is_none_or(|only| only == sub.get_name()))
            .flat_map(Command::get_arguments)
            .chain(self.command.get_arguments())
            .filter(|arg| belongs_here(arg))
            .filter_map(Arg::get_long);
        let of = only.map_or(String::new(), |only| format!(" of `airrun {only}`"));
        let why = format!("unknown key '{name}': no flag{of} is called so");
        Err(self.file.wrong(Some(key.span()), why, nearest(name, flags)))
    }

    /// Whether a flag that was typed excludes `arg`.
    fn contradicted(&self, command: &Command, arg: &Arg) -> bool {
        let Some(mut matches) = self.typed else { return false };
        if matches.subcommand_name() == Some(command.get_name()) {
            matches = matches.subcommand().map_or(matches, |(_, inner)| inner);
        }
        let excludes = |a: &Arg, b: &Arg| {
            is_opposite_of(b, a)
                || command.get_arg_conflicts_with(a).iter().any(|c| c.get_id() == b.get_id())
        };
        command.get_arguments().any(|other| {
            let id = other.get_id().as_str();
            let typed = matches.try_contains_id(id).is_ok()
                && matches.value_source(id) == Some(ValueSource::CommandLine);
            typed && (excludes(arg, other) || excludes(other, arg))
        })
    }

    /// The value as it would be typed, if the flag takes it.
    fn texts(&self, arg: &Arg, key: &Key<'_>, value: &Item<'_>) -> anyhow::Result<Vec<ClapStr>> {
        let wrong = |why: String| {
            let hint = format!("the value is that of the flag --{}", key.get_ref());
            self.file.wrong(Some(value.span()), format!("{} {why}", key.get_ref()), hint)
        };
        let switch = matches!(arg.get_action(), ArgAction::SetTrue | ArgAction::SetFalse);
        let many = matches!(arg.get_action(), ArgAction::Append);
        let texts = match value.get_ref() {
            DeValue::Boolean(on) if switch => vec![on.to_string()],
            _ if switch => return Err(wrong("must be true or false".to_owned())),
            DeValue::Array(items) if many => items
                .iter()
                .map(|item| scalar(item.get_ref()))
                .collect::<Option<Vec<_>>>()
                .ok_or_else(|| wrong("must be a list of texts or numbers".to_owned()))?,
            value => match scalar(value) {
                Some(text) => vec![text],
                None if many => return Err(wrong("must be a list".to_owned())),
                None => return Err(wrong("must be a text or a number".to_owned())),
            },
        };
        for text in &texts {
            refusal(arg, text).map_or(Ok(()), |why| Err(wrong(format!("= '{text}': {why}"))))?;
        }
        Ok(texts.into_iter().map(ClapStr::from).collect())
    }
}

/// Whether a file can set `arg`.
fn belongs_here(arg: &Arg) -> bool {
    !NOT_HERE.contains(&arg.get_id().as_str()) && !is_opposite(arg)
}

/// `command` with another default for `arg`.
fn with_default(command: Command, arg: &Arg, values: Vec<ClapStr>) -> Command {
    command.mut_arg(arg.get_id().clone(), |arg| {
        // A switch has no value that help could show.
        let hides = arg.get_action().takes_values();
        let arg = arg.default_values(values);
        if hides { arg.hide_default_value(true) } else { arg }
    })
}

/// A text or a number as one would type it.
fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.clone().into_owned()),
        DeValue::Integer(n) => Some(i128::from_str_radix(n.as_str(), n.radix()).ok()?.to_string()),
        DeValue::Float(x) => Some(x.as_str().to_owned()),
        _ => None,
    }
}

/// Why the flag does not take `text`, in the words of the flag's own check.
fn refusal(arg: &Arg, text: &str) -> Option<String> {
    let alone = Arg::new("value")
        .long("value")
        .value_parser(arg.get_value_parser().clone())
        .action(arg.get_action().clone())
        .default_value(text.to_owned());
    let trial = Command::new("airrun").no_binary_name(true).arg(alone);
    let error = trial.try_get_matches_from(std::iter::empty::<&OsStr>()).err()?;
    let possible = arg.get_possible_values();
    Some(match std::error::Error::source(&error) {
        Some(why) => why.to_string(),
        None if possible.is_empty() => "is not a value of it".to_owned(),
        None => {
            let names: Vec<&str> = possible.iter().map(|value| value.get_name()).collect();
            format!("must be one of {}", names.join(", "))
        }
    })
}

/// The MODEL that was typed.
fn typed_model(typed: &ArgMatches) -> Option<String> {
    let (_, matches) = typed.subcommand()?;
    let raw = matches.try_get_raw("model").ok()??.next()?;
    Some(raw.to_string_lossy().into_owned())
}

/// Whether `model`, as typed, is meant by `name`: it is the same, or its file is called so.
fn is_called(model: &str, name: &str) -> bool {
    let path = Path::new(model);
    model == name
        || path.file_name().is_some_and(|file| file == name)
        || path.file_stem().is_some_and(|stem| stem == name)
}

/// A hint that names the word most like `word`.
fn nearest<'a>(word: &str, words: impl Iterator<Item = &'a str>) -> String {
    let like = |other: &str| strsim::jaro_winkler(word, other);
    let best = words.max_by(|a, b| like(a).total_cmp(&like(b)));
    match best.filter(|best| like(best) >= ALIKE) {
        Some(best) => format!("did you mean '{best}'?"),
        None => "keys are the long names of flags, tables those of commands: see `airrun --help`"
            .to_owned(),
    }
}

/// The arguments of a command that is `typed` where the configuration is `text`, without a file; errors are words.
pub(super) fn parse(text: &str, typed: &[&str]) -> Result<Args, String> {
    let found = Found { path: PathBuf::from("c.toml"), text: text.to_owned() };
    let typed = [&["airrun"], typed].concat();
    let first = args::command().try_get_matches_from(&typed).map_err(|e| e.to_string())?;
    let command = found.apply(args::command(), Some(&first)).map_err(|e| e.to_string())?;
    let matches = command.try_get_matches_from(&typed).map_err(|e| e.to_string())?;
    Args::from_arg_matches(&matches).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(text: &str, typed: &[&str]) -> args::ChatArgs {
        match parse(text, typed).unwrap().command {
            args::Command::Chat(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_more_special_counts_more() {
        let text = "temp = 0.5\ntop-k = 3\nno-repack = true\nseed = 0x10\n[chat]\ntemp = 0.25\n\
                    system = 'x'\n[run]\ntemp = 9\n[models.tiny]\nctx = 64\nseed = 5";
        let args = chat(text, &["chat", "m.gguf"]);
        assert_eq!((args.sample.usual.temp, args.sample.usual.top_k), (Some(0.25), Some(3)));
        assert_eq!((args.sample.usual.seed, args.load.ctx), (Some(16), None));
        assert!(args.load.no_repack && args.system.as_deref() == Some("x"));
        let args = chat(text, &["chat", "dir/tiny.gguf", "--temp", "1", "--top-k=4"]);
        assert_eq!((args.sample.usual.temp, args.sample.usual.top_k), (Some(1.0), Some(4)));
        assert_eq!((args.sample.usual.seed, args.load.ctx), (Some(5), Some(64)));
    }

    #[test]
    fn a_typed_flag_is_not_contradicted() {
        for (file, typed) in [("quiet = true", "-v"), ("verbose = true", "-q")] {
            let args = parse(file, &["chat", "m", typed]).unwrap();
            assert_eq!((args.quiet, args.verbose), (typed == "-q", typed == "-v"), "{file}");
        }
        assert!(parse("quiet = true", &["chat", "m"]).unwrap().quiet);
    }

    #[test]
    fn what_the_file_turns_on_can_be_turned_off() {
        let text = "no-repack = true\nquiet = true\n[chat]\nignore-eos = true";
        let on = parse(text, &["chat", "m"]).unwrap();
        let off = &["chat", "m", "--repack", "--no-quiet", "--no-ignore-eos"];
        let off = parse(text, off).unwrap();
        for (args, want) in [(on, true), (off, false)] {
            assert_eq!(args.quiet, want);
            let args::Command::Chat(chat) = args.command else { panic!("a chat") };
            assert_eq!((chat.load.no_repack, chat.sample.ignore_eos), (want, want));
        }
        // The last counts, and a file says what it means.
        let args = chat("", &["chat", "m", "--repack", "--no-repack"]);
        assert!(args.load.no_repack);
        assert!(!chat("", &["chat", "m", "--no-repack", "--repack"]).load.no_repack);
        assert!(parse("no-quiet = true", &["chat", "m"]).is_err());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, words) in [
            ("\ntemp = 0.5\ntmep = 1", "line 3: unknown key 'tmep'"),
            ("top_k = 1", "unknown key 'top_k'"),
            ("[chta]\n", "line 1: unknown table 'chta'"),
            ("[chat]\n\nprompt = 1", "line 3: unknown key 'prompt': no flag of `airrun chat`"),
            ("temp = -1", "line 1: temp = '-1': must be a number from 0 to 100"),
            ("temp = true", "temp must be a text or a number"),
            ("temp = [1]", "temp must be a text or a number"),
            ("temp = 1979-05-27", "temp must be a text or a number"),
            ("no-repack = 'yes'", "no-repack must be true or false"),
            ("stream = 'often'", "stream = 'often': must be one of auto, always, never"),
            ("ctx = 99999999999999999999", "ctx = '99999999999999999999'"),
            ("ctx = 1.5", "ctx = '1.5'"),
            ("threads = 0", "threads = '0'"),
            ("config = 'x'", "unknown key 'config'"),
            ("[models]\nx = 1", "line 2: 'x' is not a table"),
            ("[models.other]\nx = 1", "line 2: unknown key 'x'"),
            ("a = \nb", "line "),
            ("temp = 1\ntemp = 2", "line 2"),
            ("\u{0}", "line 1"),
        ] {
            let error = parse(text, &["chat", "m"]).map(|_| ()).unwrap_err();
            assert!(error.contains(words) && error.contains("'c.toml'"), "{text}: {error}");
        }
        assert_eq!(nearest("tmep", ["ctx", "temp"].into_iter()), "did you mean 'temp'?");
    }
}
