//! The real program: what it prints where, how it ends, and a conversation on a terminal.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::skip::skipped;

/// A margin between the two best logits below which another correct implementation may choose
/// differently.
const SURE: f64 = 1.0;

fn model(name: &str) -> String {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "models", name].iter().collect();
    path.display().to_string()
}

fn tiny() -> String {
    model("tiny-chat-q8_0.gguf")
}

fn airrun(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_airrun"));
    command.args(args).args(one_thread(args)).env_remove("NO_COLOR").stdin(Stdio::null());
    command
}

/// Threads that wait for each other are slow where other tests keep the cores busy, so a model runs
/// on one.
fn one_thread(args: &[&str]) -> &'static [&'static str] {
    let computes = matches!(args.first(), Some(&("run" | "chat" | "logits")));
    if computes { &["-t", "1"] } else { &[] }
}

fn run(args: &[&str]) -> Output {
    airrun(args).output().unwrap()
}

/// Runs with `input` on stdin.
fn pipe(args: &[&str], input: &[u8]) -> Output {
    let mut child = airrun(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The program may end without reading: that is for the caller to judge.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Asserts that it failed with `status`, said nothing on stdout, and said `words` on stderr.
#[track_caller]
fn check_failure(output: &Output, status: i32, words: &[&str]) {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{stderr}");
    assert_eq!(text(&output.stdout), "");
    for word in words {
        assert!(stderr.contains(word), "'{word}' is missing in: {stderr}");
    }
}

#[track_caller]
fn check_answer(output: &Output, want: &str) {
    assert_eq!(text(&output.stderr), "");
    assert_eq!(text(&output.stdout), want);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn golden_answers_streamed_and_not() {
    let golden = std::fs::read(model("golden.json")).unwrap();
    let golden: Value = serde_json::from_slice(&golden).unwrap();
    let mut n = 0;
    for prompt in golden["prompts"].as_array().unwrap() {
        let said = |m: &Value| (m["role"].as_str().unwrap().to_owned(), m["content"].clone());
        let messages: Vec<_> = prompt["messages"].as_array().unwrap().iter().map(said).collect();
        let (system, question) = match messages.as_slice() {
            [(_, question)] => (None, question),
            [(role, system), (_, question)] if role == "system" => (system.as_str(), question),
            _ => continue,
        };
        if prompt["min_margin"].as_f64().unwrap() < SURE {
            continue;
        }
        let want = format!("{}\n", prompt["completion"].as_str().unwrap());
        for stream in ["always", "never"] {
            let file = tiny();
            let mut args =
                vec!["chat", &file, "--temp", "0", "-n", "48", "--stream", stream, "-c", "512"];
            args.extend(system.iter().flat_map(|text| ["--system", text]));
            let output = pipe(&args, question.as_str().unwrap().as_bytes());
            assert_eq!(text(&output.stdout), want, "{} {stream}", prompt["name"]);
            assert_eq!(output.status.code(), Some(0));
        }
        n += 1;
    }
    assert!(n >= 5, "only {n} prompts were tried");
}

#[test]
fn the_prompt_comes_as_an_argument_or_on_stdin() {
    let want = "The capital of Mongolia is Ulaanbaatar.\n";
    let question = "What is the capital of Mongolia?";
    check_answer(&run(&["run", &tiny(), question, "--temp", "0"]), want);
    for command in ["run", "chat"] {
        for end in ["", "\n", "\r\n"] {
            let input = format!("{question}{end}");
            check_answer(&pipe(&[command, &tiny(), "--temp", "0"], input.as_bytes()), want);
        }
    }
}

/// The typed prompt comes first, then an empty line, then what stdin holds.
#[test]
fn stdin_follows_a_prompt_that_was_typed() {
    let both = |typed: &str, input: &str| {
        let file = tiny();
        let typed: &[&str] =
            if typed.is_empty() { &["run", &file] } else { &["run", &file, typed] };
        let args = [typed, &["--temp", "0", "--raw", "-n", "8", "-v", "-c", "512"]].concat();
        let output = pipe(&args, input.as_bytes());
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    for (typed, input, whole) in [
        ("My name is Rosa.", "What is my name?", "My name is Rosa.\n\nWhat is my name?"),
        ("My name is Rosa.", "What is it?\n", "My name is Rosa.\n\nWhat is it?"),
        ("My name is Rosa.", "", "My name is Rosa."),
        ("My name is Rosa.", " \n", "My name is Rosa."),
    ] {
        assert_eq!(both(typed, input), both("", whole), "{typed:?} {input:?}");
    }
    let output = pipe(&["run", &tiny(), "Hi"], b"caf\xe9");
    check_failure(&output, 1, &["not UTF-8"]);
}

/// A model that is not there is named before the prompt is looked at.
#[test]
fn the_model_is_looked_for_first() {
    for command in ["run", "chat"] {
        check_failure(&run(&[command, "/no/such.gguf"]), 1, &["model '/no/such.gguf'"]);
    }
    let address = "https://huggingface.co/a/b/resolve/main/x.gguf";
    check_failure(&run(&["run", address, "Hi"]), 1, &["`airrun pull https://huggingface.co/"]);
    check_failure(&run(&["run", "some-org/no-such", "Hi"]), 1, &["`airrun pull some-org/no-such"]);
}

/// Flags and commands of other programs stay errors, and have a hint.
#[test]
fn habits_from_elsewhere_get_a_hint() {
    let tiny = tiny();
    for (args, word) in [
        (&["-m", &tiny][..], "hint: the model goes without a flag: airrun chat "),
        (&[&tiny], "hint: `airrun chat "),
        (&["run", &tiny, "Hi", "-ngl", "99"], "--vram"),
        (&["chat"], "`airrun list`"),
    ] {
        let what =
            if args.contains(&"-ngl") { "airrun: there is no flag '-ngl'" } else { "error: " };
        check_failure(&run(args), 2, &[what, word]);
    }
    let port = ["serve", &tiny, "--host", "no.such.host.invalid", "--port", "0"];
    check_failure(&run(&port), 1, &["host 'no.such.host.invalid': ", "hint: "]);
}

#[test]
fn raw_prompts_go_without_a_template() {
    let prompt = "<|im_start|>user\nWho are you?<|im_end|>\n<|im_start|>assistant\n";
    let output = run(&["run", &tiny(), prompt, "--raw", "--temp", "0"]);
    check_answer(&output, "I am tiny-chat, a very small model that runs with airrun.\n");
}

#[test]
fn a_seed_makes_the_draw_repeatable() {
    let story = || {
        let args = ["run", &tiny(), "Tell me a story.", "--temp", "1.5", "--seed", "7", "-n", "40"];
        text(&run(&args).stdout)
    };
    let first = story();
    assert!(first.len() > 20, "{first}");
    assert_eq!(first, story());
}

#[test]
fn prompts_that_cannot_be_used_are_refused() {
    for command in ["run", "chat"] {
        for empty in ["", " \n\t\n", "\u{feff}", "\u{feff}\r\n"] {
            let output = pipe(&[command, &tiny()], empty.as_bytes());
            check_failure(&output, 1, &["airrun: the prompt is empty", "\n\nhint: "]);
        }
        let output = pipe(&[command, &tiny()], b"caf\xe9 au lait");
        check_failure(&output, 1, &["not UTF-8 at byte 3", "\n\nhint: "]);
    }
    check_failure(&run(&["run", &tiny(), ""]), 1, &["the prompt is empty"]);
    let long = "word ".repeat(2000);
    let output = pipe(&["chat", &tiny(), "-c", "256"], long.as_bytes());
    check_failure(&output, 1, &["tokens, and the context holds 256", "hint: ", "-c"]);
    let output = pipe(&["run", &tiny(), "--raw", "-c", "256"], long.as_bytes());
    check_failure(&output, 1, &["tokens, and the context", "hint: ", "-c"]);
}

#[test]
fn models_that_are_not_there_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let text_file = dir.path().join("notes.txt");
    std::fs::write(&text_file, "not a model").unwrap();
    let (dir, text_file) = (dir.path().to_str().unwrap(), text_file.to_str().unwrap());
    for command in ["run", "chat", "inspect", "logits"] {
        for (file, word) in
            [("/no/such.gguf", "No such file"), (dir, "directory"), (text_file, "GGUF")]
        {
            let args: &[&str] = match command {
                "run" => &[command, file, "Hi"],
                "logits" => &[command, file, "--tokens", "1"],
                _ => &[command, file],
            };
            let output = pipe(args, b"Hi");
            check_failure(&output, 1, &[&format!("airrun: model '{file}': "), word, "\n\nhint: "]);
        }
    }
}

/// The tiny model with another template, written over its own.
pub(crate) fn model_with_template(dir: &Path, template: &str) -> String {
    let mut bytes = std::fs::read(tiny()).unwrap();
    let key = b"tokenizer.chat_template";
    let at = bytes.windows(key.len()).position(|w| w == key).unwrap() + key.len();
    // The key is followed by the value's type [u32] and length [u64].
    let len = u64::from_le_bytes(bytes[at + 4..at + 12].try_into().unwrap());
    let room = &mut bytes[at + 12..at + 12 + usize::try_from(len).unwrap()];
    room.fill(b' ');
    room[..template.len()].copy_from_slice(template.as_bytes());
    let path = dir.join("other-template.gguf");
    std::fs::write(&path, bytes).unwrap();
    path.display().to_string()
}

#[test]
fn templates_that_cannot_be_used_are_replaced_and_hostile_ones_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = model_with_template(dir.path(), "{{ nothing() }}");
    let output = run(&["run", &file, "Who are you?", "--temp", "0"]);
    assert_eq!(text(&output.stdout), "I am tiny-chat, a very small model that runs with airrun.\n");
    assert!(text(&output.stderr).contains("warning: the file's chat template cannot be used"));

    let greedy = "{% set n = namespace(l=[]) %}{% for i in range(2000) %}\
        {% set n.l = n.l + ['x' * (1000000 + i)] %}{% endfor %}";
    let file = model_with_template(dir.path(), greedy);
    check_failure(&run(&["run", &file, "Hi"]), 1, &["takes memory without end", "hint: "]);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    for args in [
        vec!["run", "MODEL", "Tell me a story.", "--temp", "0"],
        vec!["logits", "MODEL", "--tokens", "1,2,3", "--json"],
        vec!["inspect", "MODEL", "--tensors"],
    ] {
        let file = tiny();
        let args: Vec<&str> = args.iter().map(|&a| if a == "MODEL" { &file } else { a }).collect();
        let mut child =
            airrun(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(text(&output.stderr), "", "{args:?}");
        assert_eq!(output.status.code(), Some(0), "{args:?}");
    }
}

/// What was asked for and could not be written is a failure, whatever it is.
#[test]
#[cfg(target_os = "linux")]
fn a_full_output_is_a_failure() {
    let model = tiny();
    for args in [
        &["--help"][..],
        &["-h"],
        &["--version"],
        &["help", "run"],
        &["run", "--help"],
        &["completions", "bash"],
        &["man"],
        &["devices"],
        &["list", "--names"],
        &["list", "--json"],
        &["inspect", &model],
        &["inspect", &model, "--json"],
        &["logits", &model, "--tokens", "1"],
        &["run", &model, "Hi", "-n", "2"],
    ] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = airrun(args).stdout(full).stderr(Stdio::piped()).output().unwrap();
        // A list without models is no text at all.
        let said = text(&output.stderr);
        let wrote = said.contains("No space left");
        let nothing = args[0] == "list" && said.contains("no models were found");
        assert!(nothing || (output.status.code() == Some(1) && wrote), "{args:?}: {output:?}");
    }
}

#[test]
fn logits_are_printed_to_the_last_bit() {
    let json = |extra: &[&str]| {
        let file = tiny();
        let args = [&["logits", &file, "--tokens", "1,267,201,563", "--json"], extra].concat();
        let output = run(&args);
        assert_eq!(text(&output.stderr), "");
        assert_eq!(output.status.code(), Some(0));
        text(&output.stdout)
    };
    let whole = json(&["--stream", "never"]);
    let parsed: Value = serde_json::from_str(&whole).unwrap();
    assert_eq!(parsed["n_vocab"], 2048);
    assert_eq!(parsed["logits"].as_array().unwrap().len(), 2048);
    assert!(parsed["logits"].as_array().unwrap().iter().all(Value::is_f64));
    assert_eq!(whole, json(&["--stream", "always"]));
    assert_eq!(
        json(&["--ubatch", "1", "--stream", "never"]),
        json(&["--ubatch", "1", "--stream", "always"])
    );

    let shown = text(&run(&["logits", &tiny(), "--tokens", "1"]).stdout);
    assert_eq!(shown.lines().count(), 11, "{shown}");

    let output = run(&["logits", &tiny(), "--tokens", "1,2048"]);
    check_failure(&output, 1, &["2048", "vocabulary"]);
    for wrong in ["", "1,,2", "-1", "x", "99999999999"] {
        let output = run(&["logits", &tiny(), &format!("--tokens={wrong}")]);
        check_failure(&output, 2, &["--tokens"]);
    }
}

#[test]
fn help_fits_eighty_columns() {
    let commands = "chat run bench plan inspect devices logits list pull quantize serve doctor man";
    for command in commands.split(' ').chain([""]) {
        for flag in ["-h", "--help"] {
            let args: Vec<&str> = [command, flag].into_iter().filter(|a| !a.is_empty()).collect();
            let output = run(&args);
            assert_eq!(output.status.code(), Some(0));
            for line in text(&output.stdout).lines() {
                assert!(line.chars().count() <= 80, "{command} {flag}: {line}");
            }
        }
    }
    assert!(text(&run(&["--version"]).stdout).starts_with("airrun "));
}

#[test]
fn wrong_command_lines_are_usage_errors() {
    let tiny = tiny();
    for args in [
        &[][..],
        &["nonsense"],
        &["run"],
        &["run", &tiny, "Hi", "--temp", "-1"],
        &["run", &tiny, "Hi", "--temp", "nan"],
        &["run", &tiny, "Hi", "--top-p", "0"],
        &["run", &tiny, "Hi", "--top-k", "-5"],
        &["run", &tiny, "Hi", "--seed", "x"],
        &["run", &tiny, "Hi", "-n", "0"],
        &["run", &tiny, "Hi", "--ubatch", "0"],
        &["run", &tiny, "Hi", "--stream", "sometimes"],
        &["run", &tiny, "Hi", "--ram", "lots"],
        &["run", &tiny, "Hi", "-q", "-v"],
        &["logits", &tiny],
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert_eq!(text(&output.stdout), "", "{args:?}");
    }
}

/// Noise until the context is full: all tokens are about equally likely, but for those that would end the answer.
const NOISE: [&str; 9] =
    ["--ignore-eos", "--temp", "100", "--top-k", "0", "--top-p", "1", "--min-p", "0"];

#[test]
fn an_interrupt_ends_the_answer_and_the_program() {
    let file = tiny();
    let args = [&["run", &file, "Hi", "--stream", "always"], &NOISE[..]].concat();
    let mut child = airrun(&args).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut answer = vec![0];
    stdout.read_exact(&mut answer).unwrap();
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(kill.unwrap().success());
    stdout.read_to_end(&mut answer).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(answer.last(), Some(&b'\n'));
}

/// The program on a terminal of its own, made by script(1).
pub(crate) struct Terminal {
    child: Child,
    keys: ChildStdin,
    screen: Receiver<Vec<u8>>,
    seen: String,
}

/// A test that fails leaves no program behind: without script(1) the terminal hangs up.
impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where `words` end in what was seen, also if one of their spaces became the end of a line: which one does, depends on the names in it.
fn end_of(seen: &str, words: &str) -> Option<usize> {
    if let Some(at) = seen.find(words) {
        return Some(at + words.len());
    }
    let (mut flat, mut ends) = (Vec::new(), Vec::new());
    let mut rest = seen.as_bytes();
    while let Some(&byte) = rest.first() {
        let (byte, len) = if rest.starts_with(b"\r\n") { (b' ', 2) } else { (byte, 1) };
        rest = &rest[len..];
        flat.push(byte);
        ends.push(seen.len() - rest.len());
    }
    let at = flat.windows(words.len()).position(|part| part == words.as_bytes())?;
    Some(ends[at + words.len() - 1])
}

impl Terminal {
    /// None, with a word, where there is no script(1) of util-linux.
    fn open(args: &[&str], state: &Path) -> Option<Terminal> {
        Terminal::open_with(args, state, &[])
    }

    /// With these environment variables, too.
    pub(crate) fn open_with(
        args: &[&str],
        state: &Path,
        envs: &[(&str, String)],
    ) -> Option<Terminal> {
        // In a container, script(1) may be there and terminals not.
        let trial = Command::new("script")
            .args(["--quiet", "--return", "--command", "true", "/dev/null"])
            .stdin(Stdio::null())
            .output();
        if !trial.is_ok_and(|t| t.status.success()) {
            skipped("script(1) of util-linux cannot make a terminal here");
            return None;
        }
        let args = args.iter().chain(one_thread(args));
        let quoted: Vec<String> = args.map(|a| format!("'{a}'")).collect();
        // Without `exec`, a shell that waits for its child dies of a Ctrl-C that its child outlives.
        let line = format!(
            "stty cols 80 rows 24; exec '{}' {}",
            env!("CARGO_BIN_EXE_airrun"),
            quoted.join(" ")
        );
        let mut child = Command::new("script")
            .args(["--quiet", "--flush", "--return", "--command", &line, "/dev/null"])
            .env("TERM", "xterm")
            .env("XDG_STATE_HOME", state)
            .envs(envs.iter().map(|(name, value)| (name, value)))
            .current_dir(state)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (keys, mut out) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, screen) = channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = out.read(&mut buffer) {
                if sender.send(buffer[..n].to_vec()).is_err() {
                    break;
                }
            }
        });
        Some(Terminal { child, keys, screen, seen: String::new() })
    }

    pub(crate) fn press(&mut self, keys: &str) {
        self.press_bytes(keys.as_bytes());
    }

    /// What no keyboard should send.
    pub(crate) fn press_bytes(&mut self, keys: &[u8]) {
        self.keys.write_all(keys).unwrap();
        self.keys.flush().unwrap();
    }

    /// Waits until `words` have come, and forgets everything up to them.
    #[track_caller]
    pub(crate) fn expect(&mut self, words: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(end) = end_of(&self.seen, words) {
                self.seen.drain(..end);
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.screen.recv_timeout(left) {
                Ok(bytes) => self.seen += &String::from_utf8_lossy(&bytes),
                Err(_) => panic!("'{words}' did not come; there is {:?}", self.seen),
            }
        }
    }

    /// Waits until `words` have come, and takes everything up to them.
    #[track_caller]
    pub(crate) fn until(&mut self, words: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.seen.contains(words) {
            let left = deadline.saturating_duration_since(Instant::now());
            let bytes = self.screen.recv_timeout(left).expect("it comes in time");
            self.seen += &String::from_utf8_lossy(&bytes);
        }
        let end = self.seen.find(words).unwrap() + words.len();
        self.seen.drain(..end).collect()
    }

    /// Waits until `n` bytes have come.
    fn expect_some(&mut self, n: usize) {
        while self.seen.len() < n {
            let bytes = self.screen.recv_timeout(Duration::from_secs(60)).unwrap();
            self.seen += &String::from_utf8_lossy(&bytes);
        }
    }

    #[track_caller]
    pub(crate) fn ask(&mut self, line: &str, answer: &str) {
        self.expect(">>> ");
        self.press(&format!("{line}\r"));
        self.expect(answer);
    }

    /// Ends the input, and waits for the program to end. What is typed between two prompts may be lost, and a conversation that is
    /// shown looks like a prompt: then once more.
    #[track_caller]
    pub(crate) fn close(mut self) -> Option<i32> {
        self.expect(">>> ");
        let deadline = Instant::now() + Duration::from_secs(60);
        while Instant::now() < deadline {
            // It may have ended just now.
            let _ = self.keys.write_all(b"\x04").and_then(|()| self.keys.flush());
            for _ in 0..20 {
                if let Some(status) = self.child.try_wait().unwrap() {
                    return status.code();
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        panic!("it does not end; there is {:?}", self.seen)
    }
}

#[test]
fn a_conversation_on_a_terminal() {
    let state = tempfile::tempdir().unwrap();
    let file = tiny();
    let args = ["chat", &file, "--temp", "0", "-c", "512"];
    let Some(mut terminal) = Terminal::open(&args, state.path()) else { return };
    terminal.ask("My name is Rosa.", "Nice to meet you, Rosa!");
    terminal.expect("tokens/s");
    terminal.ask("What is my name?", "Your name is Rosa.");
    terminal.ask("/save talk.json", "4 messages saved");
    terminal.ask("/clear", "forgotten");
    terminal.ask("/load talk.json", "4 messages loaded");
    terminal.ask("What is my name?", "Your name is Rosa.");
    terminal.ask("/stats", "all 3 answers");
    terminal.ask("/load nothing.json", "load 'nothing.json': ");
    terminal.ask("/set temp hot", "'temp' must be a number");
    terminal.ask("/nonsense", "/nonsense is not a command");
    terminal.ask("/help", "/quit ");
    terminal.ask("/clear", "forgotten");
    terminal.ask("/system Answer in one word.", "the system message is set");
    terminal.ask("Which country has the capital Lima?", "\nPeru.");
    terminal.ask("\"\"\"Which country has\rthe capital Lima?\"\"\"", "tokens/s");
    terminal.ask("/show", "messages        4");
    assert_eq!(terminal.close(), Some(0));

    let history = std::fs::read_to_string(state.path().join("airrun/history")).unwrap();
    assert!(history.contains("My name is Rosa."), "{history}");
    let Some(mut terminal) = Terminal::open(&args, state.path()) else { return };
    terminal.expect(">>> ");
    terminal.press("\x1b[A\x1b[A");
    terminal.expect("the capital Lima?");
    terminal.press("\x03");
    terminal.expect(">>> ");
    terminal.press("\x03");
    terminal.expect("/quit leaves");
    assert_eq!(terminal.close(), Some(0));
}

/// Questions are taken back, changed and asked again; files go with them; names of files may begin with `~`.
#[test]
fn a_conversation_can_be_mended() {
    let state = tempfile::tempdir().unwrap();
    let file = tiny();
    std::fs::write(state.path().join("my notes.txt"), "My name is Rosa.\n").unwrap();
    std::fs::write(state.path().join("bad.txt"), b"caf\xe9").unwrap();
    std::fs::write(state.path().join("long.txt"), "word ".repeat(2000)).unwrap();
    let home = state.path().display().to_string();
    let args = ["chat", &file, "--temp", "0", "-c", "512"];
    let Some(mut terminal) = Terminal::open_with(&args, state.path(), &[("HOME", home)]) else {
        return;
    };
    terminal.ask("/retry", "there is no question yet");
    terminal.ask("/undo", "nothing to take back");
    terminal.ask("My name is Rosa.", "Nice to meet you, Rosa!");
    terminal.ask("/retry", "with temp 0 the answer will be the same");
    terminal.expect("Nice to meet you, Rosa!");
    terminal.ask("What is my name?", "Your name is Rosa.");
    terminal.ask("/show", "messages        4");
    terminal.ask("/undo", "taken back: the last question and its answer; 2 messages now");
    terminal.ask("/save ~/talk.json", "2 messages saved");
    terminal.ask("/save ~/talk.json", "in the place of what was there");
    terminal.ask("/clear", "forgotten");
    terminal.ask("/undo", "taken back: /clear; 2 messages now");
    terminal.ask("/load talk.json", "Nice to meet you, Rosa!");
    // The last question is on the line again; six letters of it go.
    terminal.ask("/edit", "My name is Rosa.");
    terminal.press(&"\x7f".repeat(5));
    terminal.press("Max.\r");
    terminal.expect("Max!");
    terminal.ask("/clear", "forgotten");
    terminal.ask("/read my notes.txt", "it goes with the next question");
    terminal.ask("/read", "my notes.txt: ");
    terminal.ask("What is my name?", "tokens/s");
    terminal.ask("/save files.json", "2 messages saved");
    terminal.ask("/read bad.txt", "not text in UTF-8, at byte 3");
    terminal.ask("/read long.txt", "such as -c ");
    terminal.ask("/read ..", "it is not a file");
    terminal.ask("/system Be brief.", "the system message is set");
    terminal.ask("/system \"\"", "no system message now");
    terminal.ask("/system", "no system message\r\n");
    terminal.ask("/set temperature 0.5", "temp is 0.5");
    terminal.ask("/set tmp 1", "did you mean temp?");
    terminal.ask("/set num_ctx 99", "512 tokens; -c N");
    terminal.ask("/retyr", "did you mean /retry?");
    terminal.ask("/etc/hosts is what?", "tokens/s");
    terminal.expect(">>> ");
    terminal.press("/ret\t\r");
    terminal.expect("tokens/s");
    terminal.expect(">>> ");
    terminal.press("/load fil\t\r");
    terminal.expect("loaded from 'files.json'");
    assert_eq!(terminal.close(), Some(0));
    let saved = std::fs::read_to_string(state.path().join("files.json")).unwrap();
    assert!(saved.contains("my notes.txt:\\n```\\nMy name is Rosa.\\n```\\n\\nWhat"), "{saved}");
}

/// A prompt that takes a while says how far it is and how long it will take; what streams is said at the start.
#[test]
fn a_prompt_says_how_long_it_takes() {
    let state = tempfile::tempdir().unwrap();
    let file = tiny();
    // So long that no processor reads it in the time that passes before anything is said.
    std::fs::write(state.path().join("long.txt"), "Think well. ".repeat(450)).unwrap();
    let args = ["chat", &file, "--temp", "0", "--stream", "always", "--ubatch", "1", "-c", "4096"];
    let args = [&args[..], &["-n", "4"]].concat();
    let Some(mut terminal) = Terminal::open(&args, state.path()) else { return };
    terminal.expect(" from disk for each token; about ");
    terminal.ask("/read long.txt", "it goes with the next question");
    terminal.expect(">>> ");
    terminal.press("What now?\r");
    terminal.expect("reading the prompt: ");
    terminal.expect(" left (pass ");
    terminal.expect(", block ");
    terminal.expect(" of 6)");
    terminal.expect("tokens/s");
    assert_eq!(terminal.close(), Some(0));
}

/// What is typed while an answer is written is not mixed into it, and the answer's words are whole at the edge.
#[test]
fn an_answer_has_the_terminal_for_itself() {
    let state = tempfile::tempdir().unwrap();
    let file = tiny();
    let args = ["chat", &file, "--temp", "0", "--ignore-eos", "-n", "200", "--stream", "always"];
    let Some(mut terminal) = Terminal::open(&args, state.path()) else { return };
    terminal.expect(">>> ");
    terminal.press("Tell me a story.\r");
    terminal.expect("Tell me a story.");
    terminal.expect_some(40);
    terminal.press("zzqqzz");
    let mut answer = terminal.until("tokens/s");
    assert!(!answer.contains("zzqqzz"), "{answer}");
    // The status line below the answer is no part of it.
    answer = answer.replace("\r\n", "\n");
    assert!(!answer.is_empty());
    // It is there afterwards, on the next line.
    terminal.expect(">>> ");
    terminal.expect("zzqqzz");
    terminal.press("\x15");
    terminal.press("/quit\r");
    assert_eq!(terminal.child.wait().unwrap().code(), Some(0));
}

/// On a terminal without a prompt, `run` is a conversation, as for users of Ollama.
#[test]
fn run_without_a_prompt_is_a_conversation() {
    let state = tempfile::tempdir().unwrap();
    let file = tiny();
    let args = ["run", &file, "--temp", "0", "-c", "512"];
    let Some(mut terminal) = Terminal::open(&args, state.path()) else { return };
    terminal.ask("My name is Rosa.", "Nice to meet you, Rosa!");
    assert_eq!(terminal.close(), Some(0));
}

#[test]
fn ctrl_c_stops_an_answer_and_keeps_the_conversation() {
    let state = tempfile::tempdir().unwrap();
    let file = tiny();
    let args = [&["chat", &file, "-q", "--stream", "always"], &NOISE[..]].concat();
    let Some(mut terminal) = Terminal::open(&args, state.path()) else { return };
    terminal.ask("Hi", "Hi");
    terminal.expect_some(100);
    terminal.press("\x03");
    terminal.ask("/show", "messages        2");
    assert_eq!(terminal.close(), Some(0));
}

#[test]
fn the_oldest_turns_go_when_the_context_is_full() {
    let state = tempfile::tempdir().unwrap();
    let file = tiny();
    let args = ["chat", &file, "--temp", "0", "-c", "256", "-n", "20"];
    let Some(mut terminal) = Terminal::open(&args, state.path()) else { return };
    let question = format!("What is the capital of Peru? {}", "Think well. ".repeat(8));
    for _ in 0..4 {
        terminal.ask(&question, "tokens/s");
    }
    terminal.ask(&question, "the oldest");
    terminal.ask(&"word ".repeat(600), "the message alone takes");
    assert_eq!(terminal.close(), Some(0));
}
