//! The rest of a conversation on a terminal: another model for it, answers for the clipboard, lines from the user's own editor.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::cli::Terminal;

fn model(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(name).display().to_string()
}

/// `/copy` hands the last answer to the terminal, and nothing but letters and digits of it.
#[test]
fn an_answer_is_copied() {
    let state = tempfile::tempdir().unwrap();
    let args = ["chat", &model("tiny-chat-q8_0.gguf"), "--temp", "0", "-c", "512"];
    let Some(mut terminal) = Terminal::open_with(&args, state.path(), &[]) else { return };
    terminal.ask("/copy", "there is no answer yet");
    terminal.ask("My name is Rosa.", "Nice to meet you, Rosa!");
    terminal.ask("/copy", "\x1b]52;c;");
    let letters = terminal.until("\x07");
    let copied = STANDARD.decode(letters.trim_end_matches('\x07')).unwrap();
    let copied = String::from_utf8(copied).unwrap();
    assert!(copied.starts_with("Nice to meet you, Rosa!"), "{copied}");
    terminal.expect(&format!("{} characters handed to the terminal", copied.chars().count()));
    assert_eq!(terminal.close(), Some(0));
}

/// The conversation and what was set goes on with another model; one that is none, or cannot be loaded, takes nothing away.
#[test]
fn a_conversation_goes_on_with_another_model() {
    let state = tempfile::tempdir().unwrap();
    let args = ["chat", &model("tiny-chat-q8_0.gguf"), "-c", "512"];
    let Some(mut terminal) = Terminal::open_with(&args, state.path(), &[]) else { return };
    terminal.ask("/set temp 0", "temp is 0");
    terminal.ask("/set max-tokens 40", "max-tokens is 40");
    terminal.ask("My name is Rosa.", "Nice to meet you, Rosa!");
    terminal.ask("/model", "tiny-chat-q8_0.gguf");
    terminal.ask("/model none.gguf", "'none.gguf'");
    fs::write(state.path().join("bad model.gguf"), b"root").unwrap();
    terminal.ask("/model bad model.gguf", "bad model.gguf");
    // It computes nothing but vectors.
    let vectors = crate::embedding::model(state.path(), "bert", 1);
    terminal.ask(&format!("/model {}", vectors.display()), "it is an embedding model");
    terminal.ask("/show", "model           tiny-chat-q8_0.gguf");
    terminal.ask(&format!("/model {}", model("tiny-chat-q4_k_m.gguf")), "tiny-chat-q4_k_m.gguf; ");
    terminal.ask("/show", "model           tiny-chat-q4_k_m.gguf");
    terminal.expect("messages        2");
    terminal.expect("temp            0\r");
    terminal.expect("max-tokens      40");
    terminal.ask("What is my name?", "Your name is Rosa.");
    terminal.ask("/undo", "2 messages now");
    terminal.ask("/undo", "0 messages now");
    assert_eq!(terminal.close(), Some(0));
}

/// A byte that is no text costs its line and nothing else: the conversation goes on as it was.
#[test]
fn a_bad_byte_ends_no_conversation() {
    let state = tempfile::tempdir().unwrap();
    let args = ["chat", &model("tiny-chat-q8_0.gguf"), "--temp", "0", "-c", "512"];
    let Some(mut terminal) = Terminal::open_with(&args, state.path(), &[]) else { return };
    terminal.ask("My name is Rosa.", "Nice to meet you, Rosa!");
    for bad in [&b"caf\xe9 \r"[..], b"\xff\xfe\r", b"\xf0\x9f\r"] {
        terminal.expect(">>> ");
        terminal.press_bytes(bad);
        terminal.expect("that was no UTF-8; the line was dropped");
    }
    terminal.ask("What is my name?", "Your name is Rosa.");
    assert_eq!(terminal.close(), Some(0));
}

/// Ctrl-G opens the line in the user's editor; what is written there is on the line then, and is sent by Enter.
#[test]
fn a_line_is_written_in_an_editor() {
    let state = tempfile::tempdir().unwrap();
    let editor = "case $(cat \"$2\") in *fail*) exit 3;; esac\n\
        sed -i 's/Rosa/Max/' \"$2\"\n\
        [ \"$1\" != twice ] || printf 'And I am a boy.\\n\\n' >> \"$2\"\n";
    fs::write(state.path().join("my editor"), editor).unwrap();
    let named = [("EDITOR", "sh './my editor' twice".to_owned()), ("VISUAL", " ".to_owned())];
    let args = ["chat", &model("tiny-chat-q8_0.gguf"), "--temp", "0", "-c", "512"];
    let Some(mut terminal) = Terminal::open_with(&args, state.path(), &named) else { return };
    terminal.expect(">>> ");
    terminal.press("My name is Rosa.\x07");
    terminal.expect("And I am a boy.");
    terminal.press("\r");
    terminal.expect("tokens/s");
    terminal.ask("/save talk.json", "2 messages saved");
    terminal.expect(">>> ");
    terminal.press("/fail\x07");
    terminal.expect("the editor 'sh './my editor' twice': it failed");
    // The line is there again, and does what it did.
    terminal.expect(">>> ");
    terminal.press("\r");
    terminal.expect("/fail is not a command");
    assert_eq!(terminal.close(), Some(0));
    let saved = fs::read_to_string(state.path().join("talk.json")).unwrap();
    assert!(saved.contains("My name is Max.\\nAnd I am a boy.\""), "{saved}");
}

/// An editor that is not there is named, and the line stays.
#[test]
fn an_editor_that_is_not_there_is_named() {
    let state = tempfile::tempdir().unwrap();
    let named = [("VISUAL", "no-such-editor".to_owned())];
    let args = ["chat", &model("tiny-chat-q8_0.gguf"), "--temp", "0", "-c", "512"];
    let Some(mut terminal) = Terminal::open_with(&args, state.path(), &named) else { return };
    terminal.expect(">>> ");
    terminal.press("/hel\x07");
    terminal.expect("the editor 'no-such-editor': there is no such program");
    terminal.expect(">>> ");
    terminal.press("p\r");
    terminal.expect("/model [NAME]");
    assert_eq!(terminal.close(), Some(0));
}

/// What was said is kept for `--resume` when it was said: a terminal may be closed, and a program killed. What nobody said takes no place.
#[test]
fn a_conversation_outlives_its_terminal() {
    let state = tempfile::tempdir().unwrap();
    let cache = [("XDG_CACHE_HOME", state.path().join("cache").display().to_string())];
    let model = model("tiny-chat-q8_0.gguf");
    let args = ["chat", &model, "--temp", "0", "-c", "512"];
    let open = |more: &[&str]| Terminal::open_with(&[&args, more].concat(), state.path(), &cache);
    let Some(mut terminal) = open(&[]) else { return };
    terminal.ask("My name is Rosa.", "Nice to meet you, Rosa!");
    terminal.expect(">>> ");
    drop(terminal);
    // Nobody says anything in this one.
    assert_eq!(open(&[]).unwrap().close(), Some(0));
    let mut terminal = open(&["--resume"]).unwrap();
    terminal.expect("going on after 2 messages");
    terminal.ask("/show", "messages        2");
    assert_eq!(terminal.close(), Some(0));
    // An answer that cannot be written ends the program, and leaves no question without one. (Arguments are quoted for a shell.)
    let mut terminal = open(&["--resume", "-n", "9' >'/dev/full"]).unwrap();
    terminal.ask("What is my name?", "No space left");
    drop(terminal);
    let mut terminal = open(&["--resume"]).unwrap();
    terminal.expect("going on after 2 messages");
    assert_eq!(terminal.close(), Some(0));
    let kept = fs::read_dir(state.path().join("cache/airrun/conversations")).unwrap();
    let kept: Vec<_> = kept.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
    let text = fs::read_to_string(&kept[0]).unwrap();
    assert!(text.contains("Rosa!"), "{text}");
    fs::write(&kept[0], &text[..text.len() / 2]).unwrap();
    let mut terminal = open(&["--resume"]).unwrap();
    terminal.expect("conversation '");
    terminal.expect("not a saved conversation");
    terminal.expect("without --resume a new one begins");
}

/// `/save` replaces conversations by what goes on from them, and nothing else.
#[test]
fn a_conversation_is_saved_over_nothing_else() {
    let state = tempfile::tempdir().unwrap();
    fs::write(state.path().join("notes.txt"), "mine").unwrap();
    let args = ["chat", &model("tiny-chat-q8_0.gguf"), "--temp", "0", "-c", "512"];
    let Some(mut terminal) = Terminal::open_with(&args, state.path(), &[]) else { return };
    terminal.ask("My name is Rosa.", "Nice to meet you, Rosa!");
    terminal.ask("/save notes.txt", "what is there is no saved conversation");
    terminal.ask("/save talk.json", "2 messages saved");
    terminal.ask("/save /dev/null", "2 messages saved");
    terminal.ask("/clear", "forgotten");
    terminal.ask("/save talk.json", "nothing was said yet");
    terminal.ask("/save empty.json", "0 messages saved");
    terminal.ask("/load talk.json", "2 messages loaded");
    assert_eq!(terminal.close(), Some(0));
    assert_eq!(fs::read_to_string(state.path().join("notes.txt")).unwrap(), "mine");
}

/// What the model has no room for any more is still a part of the conversation.
#[test]
fn a_full_context_takes_nothing_from_the_conversation() {
    let state = tempfile::tempdir().unwrap();
    let args = ["chat", &model("tiny-chat-q8_0.gguf"), "--temp", "0", "-c", "256", "-n", "16"];
    let Some(mut terminal) = Terminal::open_with(&args, state.path(), &[]) else { return };
    let long = format!("{}My name is Rosa.", "What is the sea? ".repeat(12));
    for _ in 0..4 {
        terminal.ask(&long, "tokens/s");
    }
    terminal.ask("/show", "messages        8");
    terminal.ask("/save talk.json", "8 messages saved");
    // Longer than the context: nothing is asked, and nothing is lost.
    terminal.ask(&"word ".repeat(400), "the context holds 256");
    terminal.ask("/show", "messages        8");
    assert_eq!(terminal.close(), Some(0));
}
