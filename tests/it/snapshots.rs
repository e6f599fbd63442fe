//! What people and programs read, as a whole: any change of it is seen in review. Numbers that depend on the machine or the build are N.
//! The help of all commands is `docs/cli.md`. `INSTA_UPDATE=always` writes them anew.

use insta::assert_snapshot;
use serde_json::json;

use crate::home::{Home, check_success, model, text};
use crate::serve::Server;

/// `text` with N for numbers, and one blank for many.
fn masked(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let mut number = false;
        let mut masked = String::new();
        for c in line.chars() {
            let goes_on = number && c == '.';
            if c.is_ascii_digit() || goes_on {
                if !number {
                    masked.push('N');
                }
                number = true;
            } else {
                number = false;
                masked.push(c);
            }
        }
        for unit in ["B", "KiB", "MiB", "GiB", "TiB"] {
            masked = masked.replace(&format!("N {unit}"), "N bytes");
        }
        let words: Vec<&str> = masked.split_whitespace().collect();
        let indent = if line.starts_with("  ") { "  " } else { "" };
        out += &format!("{indent}{}\n", words.join(" "));
    }
    out
}

/// The same without what depends on how fast the machine is.
fn without_speed(text: &str) -> String {
    let masked = masked(text);
    let line =
        |line: &str| line.split(", limited by ").next().unwrap_or_default().to_owned() + "\n";
    masked.lines().map(line).collect()
}

/// What the program says on stderr in a home without anything.
fn refused(args: &[&str]) -> String {
    let output = Home::new().run(args);
    assert_ne!(output.status.code(), Some(0), "{args:?}");
    format!("$ airrun {}\n{}\n", args.join(" "), text(&output.stderr).trim_end())
}

#[test]
fn errors_read_like_this() {
    let file = model("tiny-chat-q8_0.gguf").display().to_string();
    let said: String = [
        &["chat", "no-such.gguf"][..],
        &["chat", "some-org/some-repo"],
        &["run", "https://huggingface.co/a/b/resolve/main/x.gguf", "Hi"],
        &["run", "https://example.com/x.gguf", "Hi"],
        &["-m", "model.gguf"],
        &["model.gguf"],
        &["run", "model.gguf", "Hi", "-ngl", "99"],
        &["run", "model.gguf", "Hi", "--temp", "hot"],
        &["show", "model.gguf"],
        &["chat"],
        &["run", &file, ""],
        &["run", &file, "Hi", "--raw", "--ram", "1M"],
        &["run", &file, "Hi", "--device", "cuda:7"],
        &["logits", &file, "--tokens", "9999"],
        &["pull", "nonsense"],
        &["serve", &file, "--host", "0.0.0.0"],
    ]
    .iter()
    .map(|args| refused(args).replace(&file, "tiny.gguf") + "\n")
    .collect();
    assert_snapshot!("errors", without_needs(&said));
}

/// Without the memory that the program needs, which depends on the build, and the devices that there are.
fn without_needs(said: &str) -> String {
    let keep = |line: &str| match line.contains(" MiB") || line.contains("--ram ") {
        true => masked(line).trim_end().to_owned(),
        false => line.to_owned(),
    };
    said.lines().map(|line| keep(line) + "\n").collect()
}

#[test]
fn a_model_reads_like_this() {
    let home = Home::new();
    let file = model("tiny-chat-q8_0.gguf");
    put(&file, &home);
    assert_snapshot!("inspect", check_success(&home.run(&["inspect", "tiny.gguf"])));
    assert_snapshot!(
        "inspect-blocks",
        check_success(&home.run(&["inspect", "tiny.gguf", "--blocks"]))
    );
    let plan = check_success(&utf8(&home, &["plan", "tiny.gguf", "--device", "cpu"]));
    assert_snapshot!("plan", without_speed(&plan));
    let long = ["--stream", "always", "-c", "2048", "--rope-scale", "4", "--ubatch", "256"];
    let always = [&["plan", "tiny.gguf", "--device", "cpu"], &long[..]].concat();
    let plan = check_success(&utf8(&home, &always));
    let plan: String =
        plan.lines().filter(|line| !line.starts_with("faster")).map(|l| format!("{l}\n")).collect();
    assert_snapshot!("plan-streamed", without_speed(&plan));
    let mut list = home.airrun(&["list"]);
    let list = list.env("AIRRUN_MODELS", home.path()).output().unwrap();
    assert_snapshot!("list", masked(&check_success(&list)));
}

/// The program where every letter can be shown.
fn utf8(home: &Home, args: &[&str]) -> std::process::Output {
    home.airrun(args).env("LC_ALL", "C.UTF-8").output().unwrap()
}

/// The model in the home, by a short name.
fn put(file: &std::path::Path, home: &Home) {
    std::fs::copy(file, home.at("tiny.gguf")).unwrap();
}

#[test]
fn the_doctor_reads_like_this() {
    let text = check_success(&Home::new().run(&["doctor", "--quick"]));
    // What is found differs from machine to machine; what is looked at does not.
    let words = text.lines().take_while(|line| !line.trim().is_empty());
    let names: Vec<&str> = words
        .filter(|line| !line.starts_with(' '))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_snapshot!("doctor", names.join("\n"));
}

/// An answer's JSON with what differs from answer to answer taken out.
fn timeless(text: &str) -> String {
    let mut out = text.to_owned();
    for key in ["id", "created", "system_fingerprint", "created_at", "modified_at", "timings"] {
        for quote in ["\"", ""] {
            let begin = format!("\"{key}\":{quote}");
            let mut rest = out.as_str();
            let mut done = String::new();
            while let Some(at) = rest.find(&begin) {
                let after = &rest[at + begin.len()..];
                let end = after.find(if quote.is_empty() { &[',', '}'][..] } else { &['"'][..] });
                done += &rest[..at];
                done += &format!("\"{key}\":{quote}...");
                rest = &after[end.unwrap_or(0)..];
                if quote.is_empty() && after.starts_with('"') {
                    rest = after;
                    done.truncate(done.len() - 3);
                }
            }
            out = done + rest;
        }
    }
    out
}

#[test]
fn the_server_reads_like_this() {
    let server = Server::with_model(
        &model("tiny-chat-q8_0.gguf").display().to_string(),
        &["--name", "tiny"],
    );
    let question = json!([{"role": "user", "content": "What is the capital of Mongolia?"}]);
    let chat = json!({"messages": question, "temperature": 0, "max_tokens": 4});
    let mut stream = chat.clone();
    stream["stream"] = true.into();
    let answers = [
        ("/v1/chat/completions", chat),
        ("/v1/chat/completions", stream),
        ("/v1/chat/completions", json!({"messages": "x"})),
        ("/v1/completions", json!({"prompt": "Once", "temperature": 0, "max_tokens": 2})),
        ("/nothing", json!({})),
    ]
    .map(|(path, body)| {
        let answer = server.post(path, &body);
        format!("POST {path} {body}\n{}\n{}\n", answer.status, timeless(&answer.text))
    });
    assert_snapshot!("server", answers.join("\n"));
}
