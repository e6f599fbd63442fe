//! The REPL's commands as typed. What they do is in `repl`.

/// A line that begins with a slash.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    Help,
    /// New instructions, or a question for the present ones.
    System(Option<String>),
    /// A setting and its value.
    Set(String, String),
    Show,
    Clear,
    Save(String),
    Load(String),
    Stats,
    Quit,
}

/// What `/help` prints.
pub(super) const HELP: &str = "\
/help              this list
/system [TEXT]     show or set the instructions for the conversation
/set NAME VALUE    change a setting; /show lists them
/show              model, context and settings
/clear             forget the conversation
/save FILE         write the conversation to a file
/load FILE         go on with a saved conversation
/stats             speed of the last answer and of all
/quit              leave, as Ctrl-D does

\"\"\" begins a text of several lines, and \"\"\" ends it.
Ctrl-C stops an answer; what was said of it stays in the conversation.";

impl Command {
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
            "/system" => Ok(Command::System((!rest.is_empty()).then(|| rest.to_owned()))),
            "/set" => match rest.split_once(char::is_whitespace) {
                Some((name, value)) => Ok(Command::Set(name.to_owned(), value.trim().to_owned())),
                None => Err("/set needs a name and a value, such as /set temp 0.5".to_owned()),
            },
            "/show" => alone(Command::Show),
            "/clear" => alone(Command::Clear),
            "/save" => file().map(Command::Save),
            "/load" => file().map(Command::Load),
            "/stats" => alone(Command::Stats),
            "/quit" | "/exit" | "/bye" => alone(Command::Quit),
            _ => Err(format!("{name} is not a command; /help lists them")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Command;

    #[test]
    fn commands_are_read() {
        for (line, want) in [
            ("/help", Command::Help),
            (" /quit ", Command::Quit),
            ("/system", Command::System(None)),
            ("/system  Be brief. ", Command::System(Some("Be brief.".to_owned()))),
            ("/set temp  0.5", Command::Set("temp".to_owned(), "0.5".to_owned())),
            ("/save a b.json", Command::Save("a b.json".to_owned())),
        ] {
            assert_eq!(Command::parse(line), Ok(want), "{line}");
        }
        for line in ["/", "/nope", "/set", "/set temp", "/save", "/load ", "/quit now"] {
            assert!(Command::parse(line).is_err(), "{line}");
        }
    }
}
