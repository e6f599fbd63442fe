//! What makes the command line pleasant: help, completions, the manual, the doctor, colours, and the configuration file.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::cli::Terminal;
use crate::skip::skipped;

/// The commands that the program's help lists.
fn commands() -> Vec<String> {
    let help = data(&airrun(&["--help"]).output().unwrap());
    let list = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let names = list.lines().filter(|line| !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next()).filter(|n| *n != "help");
    let names: Vec<String> = names.map(str::to_owned).collect();
    for name in ["chat", "run", "serve", "doctor", "completions", "man"] {
        assert!(names.iter().any(|n| n == name), "{name} is missing in {names:?}");
    }
    names
}

fn airrun(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_airrun"));
    command.args(args).env("AIRRUN_CONFIG", "").env_remove("NO_COLOR").stdin(Stdio::null());
    command
}

#[track_caller]
fn data(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn tiny() -> String {
    format!("{}/models/tiny-chat-q4_k_m.gguf", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn every_command_has_help_with_examples() {
    let program = data(&airrun(&["--help"]).output().unwrap());
    for command in commands() {
        let help = data(&airrun(&[&command, "--help"]).output().unwrap());
        assert!(help.contains("\nExamples:\n  "), "{help}");
        for line in help.lines() {
            assert!(line.chars().count() <= 80, "{command}: {line}");
        }
    }
    for line in program.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

/// What `/help` says in a conversation, as lines; none where there is no terminal.
fn help_of_chat() -> Option<String> {
    let state = tempfile::tempdir().unwrap();
    let mut terminal = Terminal::open_with(&["chat", &tiny(), "-c", "256"], state.path(), &[])?;
    terminal.ask("/help", "/help ");
    let rest = terminal.until(">>> ");
    let rest = rest.split("\x1b").next().unwrap_or_default();
    let lines = format!("/help {rest}").replace('\r', "").replace(">>> ", "");
    terminal.press("/quit\r");
    Some(lines.lines().map(|line| line.trim_end().to_owned() + "\n").collect())
}

/// `docs/cli.md` is the help of all commands; `AIRRUN_TEST_WRITE=1` writes it.
#[test]
fn the_reference_is_the_help() {
    let mut text = "# The command line\n\nWhat `--help` says, made of it by a test (`AIRRUN_TEST_WRITE=1 cargo test --test it \
        the_reference`).\n"
        .to_owned();
    let mut add = |title: &str, args: &[&str]| {
        let help = data(&airrun(args).output().unwrap());
        text += &format!("\n## {title}\n\n```text\n{}\n```\n", help.trim_end());
    };
    add("airrun", &["--help"]);
    for command in commands() {
        add(&format!("airrun {command}"), &[&command, "--help"]);
    }
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/cli.md");
    let Some(said) = help_of_chat() else { return };
    text += &format!("\n## In a conversation\n\n```text\n{}\n```\n", said.trim());
    if std::env::var_os("AIRRUN_TEST_WRITE").is_some() {
        fs::write(file, &text).unwrap();
    }
    let there = fs::read_to_string(file).unwrap_or_default();
    let same = there.lines().zip(text.lines()).find(|(a, b)| a != b);
    assert_eq!(
        there.lines().count(),
        text.lines().count(),
        "docs/cli.md is not the help: {same:?}"
    );
    assert_eq!(same, None, "docs/cli.md is not the help");
}

/// On a terminal the manual is a page to read, as wide as the terminal.
#[test]
fn the_manual_is_read_on_a_terminal() {
    let state = tempfile::tempdir().unwrap();
    let pager = [("PAGER", "cat".to_owned())];
    let Some(mut terminal) = Terminal::open_with(&["man"], state.path(), &pager) else { return };
    for words in ["NAME", "airrun - ", "CONFIGURATION", "ENVIRONMENT", "HF_TOKEN", "EXIT STATUS"] {
        terminal.expect(words);
    }
}

/// The list fits the terminal, whatever the models are called.
#[test]
fn the_list_fits_the_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("models");
    fs::create_dir_all(&folder).unwrap();
    for name in ["a", "a-model-with-a-long-name-of-its-own-and-some-more-instruct-q4_k_m"] {
        fs::copy(tiny(), folder.join(format!("{name}.gguf"))).unwrap();
    }
    let home = dir.path().display().to_string();
    let envs = [("AIRRUN_MODELS", folder.display().to_string()), ("HOME", home)];
    let Some(mut terminal) = Terminal::open_with(&["list"], dir.path(), &envs) else { return };
    let text = terminal.until("--json tells");
    assert!(text.contains("NAME") && text.contains("instruct-q4_k_m"), "{text}");
    for line in text.lines().filter(|line| line.contains("q4") || line.contains("NAME")) {
        let line = line.rsplit('\r').next().unwrap_or_default().trim_start_matches("\x1b[2K");
        assert!(line.chars().count() <= 80, "{line:?}");
    }
}

#[test]
fn shells_complete() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = data(&airrun(&["completions", shell]).output().unwrap());
        assert!(script.contains("max-tokens") && script.contains("doctor"), "{shell}");
    }
    let wrong = airrun(&["completions", "dos"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
    // The script is one that bash takes, and completes with.
    let script = r#"eval "$("$0" completions bash)"; COMP_WORDS=(airrun do); COMP_CWORD=1
        _airrun airrun do airrun; echo "${COMPREPLY[*]}""#;
    let bash = Command::new("bash").args(["-c", script, env!("CARGO_BIN_EXE_airrun")]).output();
    if let Ok(output) = bash {
        assert_eq!(data(&output), "doctor\n");
    }
}

/// What a shell offers after `line` in a home with models, one of them with a colon in its name, as Ollama's have; `None` without
/// the shell.
fn offered(shell: &str, script: &str, line: &str, home: &Path) -> Option<Vec<String>> {
    let (models, empty) = (home.join("models"), home.join("empty"));
    for folder in [&models, &empty] {
        fs::create_dir_all(folder).unwrap();
    }
    for name in ["alpha", "alpine", "beta:1b"] {
        fs::copy(tiny(), models.join(format!("{name}.gguf"))).unwrap();
    }
    let program = Path::new(env!("CARGO_BIN_EXE_airrun"));
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", program.parent().unwrap().display());
    let mut command = Command::new(shell);
    // Files are offered, too: here are none.
    command.args(["-c", script, program.to_str().unwrap(), line]).current_dir(empty);
    command.env("AIRRUN_MODELS", models).env("AIRRUN_CONFIG", "").env("PATH", path);
    command.env("HOME", home);
    let output = command.output().ok()?;
    Some(data(&output).split_whitespace().map(str::to_owned).collect())
}

#[test]
fn shells_complete_names_of_models() {
    let dir = tempfile::tempdir().unwrap();
    let json = airrun(&["list", "--names", "--json"]).output().unwrap();
    assert_eq!(json.status.code(), Some(2));
    // As bash calls it, with the words that it makes of the line.
    let bash = r#"eval "$("$0" completions bash)"; COMP_LINE=$1; COMP_POINT=${#1}
        read -ra COMP_WORDS <<<"${1//:/ : }"; [[ $1 == *\  ]] && COMP_WORDS+=("")
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        _airrun_models airrun "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        echo "${COMPREPLY[*]}""#;
    let fish = r#"airrun completions fish | source; complete -C $argv[2] | string replace -r '\t.*' ''; or true"#;
    for (shell, script) in [("bash", bash), ("fish", fish)] {
        let offer = |line: &str| offered(shell, script, line, dir.path());
        let Some(all) = offer("airrun run alp") else {
            skipped(&format!("completions of {shell}, which is not here"));
            continue;
        };
        assert_eq!(all, ["alpha", "alpine"], "{shell}");
        assert_eq!(offer("airrun chat alph").unwrap(), ["alpha"], "{shell}");
        let any = offer("airrun plan ").unwrap();
        assert!(["alpha", "beta:1b"].iter().all(|name| any.iter().any(|n| n == name)), "{any:?}");
        // Bash takes what comes after a colon for a word of its own.
        let after_colon = if shell == "bash" { "1b" } else { "beta:1b" };
        assert_eq!(offer("airrun serve beta:").unwrap(), [after_colon], "{shell}");
        for other in ["airrun pull alp", "airrun run alpha alp", "airrun bench -t alp"] {
            assert!(!offer(other).unwrap().contains(&"alpha".to_owned()), "{shell}: {other}");
        }
        assert!(offer("airrun run --ra").unwrap().contains(&"--raw".to_owned()), "{shell}");
    }
    let zsh = data(&airrun(&["completions", "zsh"]).output().unwrap());
    assert!(zsh.contains(":_airrun_models'") && zsh.contains("\n_airrun_models() {"));
}

#[test]
fn the_manual_has_a_page_for_each_command() {
    let page = data(&airrun(&["man"]).output().unwrap());
    for word in [".TH airrun 1", ".SH CONFIGURATION", "AIRRUN_READER", ".SH EXAMPLES"] {
        assert!(page.contains(word), "{word}");
    }
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("deep/man1");
    let output = airrun(&["man", "--dir", pages.to_str().unwrap()]).output().unwrap();
    assert_eq!(data(&output), "");
    for command in commands() {
        let text = fs::read_to_string(pages.join(format!("airrun-{command}.1"))).unwrap();
        assert!(text.contains(".SH SYNOPSIS") && text.contains(".SH EXAMPLES"), "{command}");
    }
    assert!(pages.join("airrun.1").exists());
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let output = airrun(&["man", "--dir", file.to_str().unwrap()]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("airrun: folder '"));
}

#[test]
fn the_doctor_tells_what_is_here() {
    let text = data(&airrun(&["doctor", "--json"]).output().unwrap());
    let facts: Value = serde_json::from_str(&text).unwrap();
    assert!(facts["cpu"]["cores"].as_u64().unwrap() > 0);
    assert!(facts["memory"]["rate"].as_f64().unwrap() > 0.0);
    assert!(!facts["build"]["cpu_features"].as_array().unwrap().is_empty());
    assert!(facts["devices"].as_array().unwrap().iter().any(|d| d["name"] == "cpu"));
    for finding in facts["findings"].as_array().unwrap() {
        assert!(!finding["what"].as_str().unwrap().is_empty());
        assert!(!finding["hint"].as_str().unwrap().is_empty());
    }
    // For people: in 80 columns, without colours on a pipe.
    let text = data(&airrun(&["doctor", "--quick"]).output().unwrap());
    assert!(text.starts_with("airrun "), "{text}");
    assert!(!text.contains('\x1b'));
    // A folder with models is found, and what is none is not counted.
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("deep")).unwrap();
    fs::copy(tiny(), dir.path().join("deep/a.gguf")).unwrap();
    fs::write(dir.path().join("notes.txt"), "not a model").unwrap();
    let mut command = airrun(&["doctor", "--json"]);
    let facts = data(&command.env("AIRRUN_MODELS", dir.path()).output().unwrap());
    let facts: Value = serde_json::from_str(&facts).unwrap();
    assert_eq!(facts["folders"][0]["n_models"], 1);
}

/// The answer to one question with this configuration.
fn configured(text: &str, args: &[&str]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("my config.toml");
    fs::write(&file, text).unwrap();
    airrun(args).env("AIRRUN_CONFIG", &file).output().unwrap()
}

#[test]
fn a_configuration_stands_in_for_flags() {
    let question = "What is the capital of Mongolia?";
    let want = "The capital of Mongolia is Ulaanbaatar.\n";
    let text = "temp = 0\nthreads = 1\nctx = 256\n[run]\nmax-tokens = 3\n";
    let short = data(&configured(text, &["run", &tiny(), question]));
    assert!(want.starts_with(short.trim_end()) && short.len() < want.len(), "{short}");
    // What is typed counts more.
    assert_eq!(data(&configured(text, &["run", &tiny(), question, "-n", "50"])), want);
    let by_model = format!("{text}[models.tiny-chat-q4_k_m]\nmax-tokens = 50\n");
    assert_eq!(data(&configured(&by_model, &["run", &tiny(), question])), want);
}

/// As llama.cpp's users type it, and never from a file.
#[test]
fn a_prompt_may_be_given_by_a_flag() {
    let question = "What is the capital of Mongolia?";
    let want = "The capital of Mongolia is Ulaanbaatar.\n";
    for flag in ["-p", "--prompt"] {
        let args = ["run", &tiny(), flag, question, "--temp", "0", "-t", "1"];
        assert_eq!(data(&airrun(&args).output().unwrap()), want);
    }
    // What follows the flag is the prompt, whatever it begins with.
    let args = ["run", &tiny(), "-p", "- a list", "--temp", "0", "-n", "2", "-t", "1"];
    data(&airrun(&args).output().unwrap());
    let both = airrun(&["run", &tiny(), question, "-p", question]).output().unwrap();
    assert_eq!(both.status.code(), Some(2));
    let named = configured("[run]\nprompt = \"Hi\"\n", &["run", &tiny(), question]);
    assert!(String::from_utf8_lossy(&named.stderr).contains("unknown key 'prompt'"));
    let text = "prompt = 64\ntemp = 0\nthreads = 1\n";
    assert_eq!(data(&configured(text, &["run", &tiny(), question])), want);
    assert!(data(&configured(text, &["plan", &tiny()])).contains("64"));
}

#[test]
fn the_file_is_where_it_is_said_to_be() {
    let dir = tempfile::tempdir().unwrap();
    let usual = dir.path().join("airrun/config.toml");
    fs::create_dir_all(usual.parent().unwrap()).unwrap();
    fs::write(&usual, "tmep = 1\n").unwrap();
    let in_home = |args: &[&str]| {
        let mut command = airrun(args);
        command.env_remove("AIRRUN_CONFIG").env("XDG_CONFIG_HOME", dir.path());
        command.output().unwrap()
    };
    let stderr = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let output = in_home(&["inspect", &tiny()]);
    assert_eq!(output.status.code(), Some(1));
    for word in
        ["airrun: config file '", "line 1: unknown key 'tmep'", "hint: did you mean 'temp'?"]
    {
        assert!(stderr(&output).contains(word), "{}", stderr(&output));
    }
    // The doctor tells of it and goes on; a flag names another file; no file is no error.
    let facts: Value =
        serde_json::from_str(&data(&in_home(&["doctor", "--json", "--quick"]))).unwrap();
    assert_eq!(facts["config"]["path"], usual.to_str().unwrap());
    assert!(facts["config"]["error"].as_str().unwrap().contains("tmep"));
    assert_eq!(facts["findings"][0]["level"], "broken");
    let other = dir.path().join("other.toml");
    fs::write(&other, "json = true\n").unwrap();
    let output = in_home(&["inspect", &tiny(), "--config", other.to_str().unwrap()]);
    assert!(data(&output).starts_with('{'));
    fs::remove_file(&usual).unwrap();
    assert!(!data(&in_home(&["inspect", &tiny()])).starts_with('{'));
    // One that was named must be there.
    let missing = dir.path().join("none.toml");
    let output = in_home(&["inspect", &tiny(), "--config", missing.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("none.toml"), "{}", stderr(&output));
}

#[test]
fn hostile_configurations_are_errors() {
    let deep = format!("a = {}", "[".repeat(100_000));
    let tables = format!("[{}a]", "a.".repeat(100_000));
    let long = "#".repeat(2 << 20);
    for text in
        [deep.as_str(), &tables, &long, "\u{0}", "[[chat]]", "chat = 1", "[chat.temp]\nx = 1"]
    {
        let output = configured(text, &["inspect", &tiny()]);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{}: {stderr}", &text[..text.len().min(20)]);
        assert!(stderr.starts_with("airrun: config file '"), "{stderr}");
    }
    let binary = airrun(&["inspect", &tiny(), "--config", env!("CARGO_BIN_EXE_airrun")]);
    assert_eq!({ binary }.output().unwrap().status.code(), Some(1));
    let folder = airrun(&["inspect", &tiny(), "--config", "/"]).output().unwrap();
    assert_eq!(folder.status.code(), Some(1));
}

/// Nothing that goes into a file or a pipe has colours, whatever the command.
#[test]
fn a_pipe_gets_no_colours() {
    let tiny = tiny();
    for args in [
        &["plan", &tiny][..],
        &["inspect", &tiny],
        &["inspect", "missing.gguf"],
        &["run", &tiny, "Hi", "-n", "4", "-v", "-t", "1"],
        &["doctor", "--quick"],
        &["logits", &tiny, "--tokens", "1"],
        &["chat", "--nonsense"],
        &["--help"],
    ] {
        let output = airrun(args).env("TERM", "xterm-256color").output().unwrap();
        for bytes in [&output.stdout, &output.stderr] {
            assert!(!bytes.contains(&0x1b), "{args:?}: {}", String::from_utf8_lossy(bytes));
        }
    }
}

/// On a terminal there are colours, unless NO_COLOR says no.
#[test]
fn a_terminal_gets_colours_unless_they_are_unwanted() {
    if !Path::new("/usr/bin/script").exists() {
        return;
    }
    for (no_color, colored) in [("", true), ("1", false)] {
        let line = format!("'{}' inspect missing.gguf", env!("CARGO_BIN_EXE_airrun"));
        let output = Command::new("script")
            .args(["-qec", &line, "/dev/null"])
            .env("AIRRUN_CONFIG", "")
            .env("NO_COLOR", no_color)
            .env("TERM", "xterm")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("airrun:"), "{text}");
        assert_eq!(text.contains("\x1b[1m\x1b[31m") || text.contains("\x1b["), colored, "{text}");
    }
}
