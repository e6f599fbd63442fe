//! The REPL's commands as typed. What they do is in `obey`.

/// A line that begins with a slash.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    Help,
    /// A question for the present system message.
    System,
    /// Another, or none.
    NewSystem(Option<String>),
    /// A setting and its value.
    Set(String, String),
    Show,
    Clear,
    Save(String),
    Load(String),
    /// A file for the next question; without one, what there is so far.
    Read(Option<String>),
    Retry,
    Undo,
    Edit,
    /// The last answer, for the terminal's clipboard.
    Copy,
    /// Another model for the same conversation; without a name, which it is now.
    Model(Option<String>),
    Stats,
    /// Whether the model is to think.
    Think(String),
    Quit,
}

/// The names that Tab completes, and whether something follows.
pub(super) const NAMES: [(&str, bool); 16] = [
    ("/clear", false),
    ("/copy", false),
    ("/edit", false),
    ("/help", false),
    ("/load", true),
    ("/model", true),
    ("/quit", false),
    ("/read", true),
    ("/retry", false),
    ("/save", true),
    ("/set", true),
    ("/show", false),
    ("/stats", false),
    ("/system", true),
    ("/think", true),
    ("/undo", false),
];

/// What `/help` prints.
pub(super) const HELP: &str = "\
/help              this list
/retry             answer the last question again
/edit              change the last question, and ask it anew
/undo              take back the last question, or the last /clear or /load
/read FILE         put a text file before the next question
/copy              put the last answer into the terminal's clipboard
/model [NAME]      go on with another model, or show which it is
/system [TEXT]     show or set the system message; \"\" takes it away
/set NAME VALUE    change a setting; /show lists them
/show              model, context and settings
/think [on|off]    think before answers, or not; low, medium, high: how much
/clear             forget the conversation
/save FILE         write the conversation to a file
/load FILE         go on with a saved conversation
/stats             speed of the last answer and of all
/quit              leave, as Ctrl-D does

Tab completes commands and files. \"\"\" begins a text of several lines, and
\"\"\" ends it; Ctrl-G writes it in $EDITOR. Ctrl-C stops an answer; what was
said of it stays.";

/// How alike a command must be to be proposed; 1 is equal.
const ALIKE: f64 = 0.8;

impl Command {
    /// Whether `line` is a command; a path at its beginning is none.
    pub(super) fn is_one(line: &str) -> bool {
        let word = line.split_whitespace().next().unwrap_or_default();
        word.strip_prefix('/').is_some_and(|name| !name.contains('/'))
    }

    /// Reads `line`, which begins with a slash; an error is a sentence for the user.
    pub(super) fn parse(line: &str) -> Result<Command, String> {
        let line = line.trim();
        let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        let file = || {
            let missing = rest.is_empty().then(|| format!("{name} needs a file name"));
            missing.map_or_else(|| Ok(rest.to_owned()), Err)
        };
        let alone = |command| {
            if rest.is_empty() {
                Ok(command)
            } else {
                Err(format!("{name} takes nothing after it"))
            }
        };
        match name {
            "/help" | "/?" => alone(Command::Help),
            "/system" => Ok(system(rest)),
            "/set" => set(rest),
            "/show" => alone(Command::Show),
            "/think" => Ok(Command::Think(rest.to_owned())),
            "/clear" => alone(Command::Clear),
            "/save" => file().map(Command::Save),
            "/load" => file().map(Command::Load),
            "/read" => Ok(Command::Read((!rest.is_empty()).then(|| rest.to_owned()))),
            "/retry" | "/regen" => alone(Command::Retry),
            "/undo" => alone(Command::Undo),
            "/edit" => alone(Command::Edit),
            "/copy" => alone(Command::Copy),
            "/model" => Ok(Command::Model((!rest.is_empty()).then(|| rest.to_owned()))),
            "/stats" => alone(Command::Stats),
            "/quit" | "/exit" | "/bye" => alone(Command::Quit),
            _ => Err(unknown(name)),
        }
    }
}

fn system(rest: &str) -> Command {
    match rest {
        "" => Command::System,
        "\"\"" | "''" => Command::NewSystem(None),
        text => Command::NewSystem(Some(text.to_owned())),
    }
}

/// `/set`, also as Ollama's users write it: `/set parameter temperature 0.5`, `/set system TEXT`.
fn set(rest: &str) -> Result<Command, String> {
    let missing = || "/set needs a name and a value, such as /set temp 0.5".to_owned();
    let rest = rest.strip_prefix("parameter ").map_or(rest, str::trim_start);
    let (name, value) = rest.split_once(char::is_whitespace).ok_or_else(missing)?;
    let value = value.trim();
    let name = name.to_ascii_lowercase().replace('_', "-");
    let name = match name.as_str() {
        "system" => return Ok(system(value)),
        "temperature" => "temp",
        "num-predict" | "n-predict" => "max-tokens",
        name => name,
    };
    Ok(Command::Set(name.to_owned(), value.to_owned()))
}

fn unknown(name: &str) -> String {
    let like = |other: &str| strsim::jaro_winkler(name, other);
    let best = NAMES.iter().map(|n| n.0).max_by(|a, b| like(a).total_cmp(&like(b)));
    match best.filter(|best| like(best) >= ALIKE && name.len() > 2) {
        Some(best) => format!("{name} is not a command; did you mean {best}? /help lists them"),
        None => format!("{name} is not a command; /help lists them"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read() {
        let set = |name: &str, value: &str| Command::Set(name.to_owned(), value.to_owned());
        for (line, want) in [
            ("/help", Command::Help),
            (" /quit ", Command::Quit),
            ("/system", Command::System),
            ("/system  Be brief. ", Command::NewSystem(Some("Be brief.".to_owned()))),
            ("/system \"\"", Command::NewSystem(None)),
            ("/set system ''", Command::NewSystem(None)),
            ("/set temp  0.5", set("temp", "0.5")),
            ("/set parameter temperature 0.5", set("temp", "0.5")),
            ("/set num_predict 9", set("max-tokens", "9")),
            ("/set TOP_K 9", set("top-k", "9")),
            ("/save a b.json", Command::Save("a b.json".to_owned())),
            ("/read", Command::Read(None)),
            ("/read ~/a b", Command::Read(Some("~/a b".to_owned()))),
            ("/retry", Command::Retry),
            ("/model", Command::Model(None)),
            ("/model ~/a b.gguf", Command::Model(Some("~/a b.gguf".to_owned()))),
        ] {
            assert_eq!(Command::parse(line), Ok(want), "{line}");
        }
        for line in [
            "/",
            "/nope",
            "/set",
            "/set temp",
            "/save",
            "/load ",
            "/quit now",
            "/undo 2",
            "/copy 1",
        ] {
            assert!(Command::parse(line).is_err(), "{line}");
        }
        let error = Command::parse("/retyr").unwrap_err();
        assert!(error.contains("did you mean /retry?"), "{error}");
    }

    #[test]
    fn a_path_is_no_command() {
        for (line, is) in [("/help", true), ("/nope x", true), ("/etc/hosts is what?", false)] {
            assert_eq!(Command::is_one(line), is, "{line}");
        }
    }

    #[test]
    fn all_names_are_commands() {
        for (name, more) in NAMES {
            let line = if more && name != "/set" { format!("{name} x") } else { name.to_owned() };
            let line = if name == "/set" { "/set temp 1".to_owned() } else { line };
            assert!(Command::parse(&line).is_ok(), "{line}");
            assert!(HELP.contains(name), "{name}");
        }
    }
}
