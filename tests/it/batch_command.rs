//! `airrun batch`: every line gets its answer or its error, in the form it was asked in; a batch that was begun goes on.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::home::{Home, check_success, model};

fn lines(text: &str) -> Vec<Value> {
    let mut lines: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    let number = |line: &Value| {
        let id = line["id"].as_str().and_then(|id| id.strip_prefix("batch_req_")?.parse().ok());
        line["line"].as_u64().or(id)
    };
    lines.sort_by_key(number);
    lines
}

fn request(id: &str, url: &str, body: Value) -> String {
    json!({"custom_id": id, "method": "POST", "url": url, "body": body}).to_string()
}

/// Lines of every kind, good and bad.
fn input() -> String {
    let question = |name: &str| json!([{"role": "user", "content": format!("What is the capital of {name}?")}]);
    [
        json!({"prompt": "What is the capital of Peru?", "temperature": 0}).to_string(),
        json!({"messages": question("Mongolia"), "temperature": 0}).to_string(),
        String::new(),
        "{\"prompt\":".to_owned(),
        request(
            "a",
            "/v1/chat/completions",
            json!({"messages": question("France"), "temperature": 0}),
        ),
        request(
            "b",
            "/v1/completions",
            json!({"prompt": "The capital of Italy is", "max_tokens": 3}),
        ),
        request("c", "/v1/elsewhere", json!({})),
        json!({"prompt": "x", "temperature": -1}).to_string(),
        json!({"prompt": 5}).to_string(),
        "[1]".to_owned(),
        json!({"prompt": "word ".repeat(3000)}).to_string(),
        json!({"prompt": "What is the capital of Spain?", "temperature": 0, "stop": "Madrid"})
            .to_string(),
    ]
    .join("\n")
}

#[test]
fn every_line_gets_its_answer_or_its_error() {
    let home = Home::new();
    home.put("in.jsonl", input().as_bytes());
    let tiny = model("tiny-chat-q8_0.gguf").display().to_string();
    let args = [
        "batch",
        &tiny,
        "in.jsonl",
        "-o",
        "out.jsonl",
        "--stream",
        "always",
        "-t",
        "1",
        "-n",
        "40",
    ];
    check_success(&home.run(&args));
    let whole = fs::read_to_string(home.at("out.jsonl")).unwrap();
    let out = lines(&whole);
    assert_eq!(out.len(), 11, "{whole}");
    assert!(out[0]["text"].as_str().unwrap().contains("Lima"), "{whole}");
    assert_eq!(out[1]["text"], "The capital of Mongolia is Ulaanbaatar.");
    assert_eq!(out[1]["finish"], "stop");
    assert!(out[2]["error"].as_str().unwrap().contains("not JSON"), "{whole}");
    let body = &out[3]["response"]["body"];
    assert_eq!(
        (&out[3]["custom_id"], &out[3]["response"]["status_code"]),
        (&json!("a"), &json!(200))
    );
    assert!(
        body["choices"][0]["message"]["content"].as_str().unwrap().contains("Paris"),
        "{whole}"
    );
    assert!(body["usage"]["completion_tokens"].as_u64().unwrap() > 2);
    assert_eq!(out[4]["response"]["body"]["object"], "text_completion");
    assert_eq!(out[5]["response"]["status_code"], 400);
    for (i, why) in [(6, "temperature"), (7, "prompt"), (8, "object"), (9, "tokens")] {
        assert!(out[i]["error"].as_str().unwrap().contains(why), "{}", out[i]);
    }
    assert!(!out[10]["text"].as_str().unwrap().contains("Madrid"), "{whole}");

    // Cut in the middle of a line, it goes on and says the same; whole, there is nothing to do.
    let at = whole.match_indices('\n').nth(4).unwrap().0 + 9;
    fs::write(home.at("out.jsonl"), &whole[..at]).unwrap();
    check_success(&home.run(&args));
    let again = lines(&fs::read_to_string(home.at("out.jsonl")).unwrap());
    let text =
        |line: &Value| (line["text"].clone(), line["error"].clone(), line["custom_id"].clone());
    assert_eq!(
        again.iter().map(text).collect::<Vec<_>>(),
        out.iter().map(text).collect::<Vec<_>>()
    );
    check_success(&home.run(&args));
    assert_eq!(lines(&fs::read_to_string(home.at("out.jsonl")).unwrap()).len(), 11);
    // What is no batch's output is not touched.
    home.put("other.txt", b"some text\n");
    let args = ["batch", &tiny, "in.jsonl", "-o", "other.txt"];
    assert_eq!(home.run(&args).status.code(), Some(1));
    assert_eq!(fs::read(home.at("other.txt")).unwrap(), b"some text\n");
    assert_eq!(home.run(&["batch", &tiny, "in.jsonl", "-o", "in.jsonl"]).status.code(), Some(1));
}

/// Devices are written to, and hold no answers from before.
#[test]
#[cfg(target_os = "linux")]
fn answers_go_to_devices_too() {
    let home = Home::new();
    let tiny = model("tiny-chat-q8_0.gguf").display().to_string();
    home.put("in.txt", "\u{feff}{\"prompt\": \"Hi\"}\r\n".as_bytes());
    let run = |to: &str| home.run(&["batch", &tiny, "in.txt", "-o", to, "-n", "1", "-t", "1"]);
    check_success(&run("/dev/null"));
    assert_eq!(run("/dev/full").status.code(), Some(1));
    check_success(&run("out.jsonl"));
    let out = lines(&fs::read_to_string(home.at("out.jsonl")).unwrap());
    assert!(out.len() == 1 && out[0]["error"].is_null(), "{out:?}");
}

#[cfg(unix)]
#[test]
fn what_can_be_read_only_once_is_read_once() {
    let home = Home::new();
    let tiny = model("tiny-chat-q8_0.gguf").display().to_string();
    let pipe = home.at("in.pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let to = pipe.clone();
    let writer = std::thread::spawn(move || fs::write(to, "{\"prompt\": \"Hi\"}\n\n"));
    let flags = ["-o", "out.jsonl", "-n", "1", "-t", "1"];
    check_success(&home.run(&[&["batch", &tiny, "in.pipe"][..], &flags].concat()));
    writer.join().unwrap().unwrap();
    assert_eq!(lines(&fs::read_to_string(home.at("out.jsonl")).unwrap()).len(), 1);
    // A line without end.
    let endless = home.run(&["batch", &tiny, "/dev/zero", "-o", "other.jsonl", "-t", "1"]);
    let said = String::from_utf8_lossy(&endless.stderr).into_owned();
    assert!(endless.status.code() == Some(1) && said.contains("longer than 256 MiB"), "{said}");
}

#[test]
fn what_holds_no_answers_is_not_replaced() {
    let home = Home::new();
    let tiny = model("tiny-chat-q8_0.gguf").display().to_string();
    home.put("in.jsonl", b"{\"prompt\": \"Hi\"}\n");
    home.put("notes.txt", b"no end of line");
    home.put("zeros", b"");
    fs::OpenOptions::new().write(true).open(home.at("zeros")).unwrap().set_len(1 << 32).unwrap();
    for name in ["notes.txt", "zeros"] {
        let length = fs::metadata(home.at(name)).unwrap().len();
        let output = home.run(&["batch", &tiny, "in.jsonl", "-o", name, "-n", "1", "-t", "1"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && said.contains("something else"), "{said}");
        assert_eq!(fs::metadata(home.at(name)).unwrap().len(), length, "{name}");
    }
}

#[test]
fn lines_come_from_stdin_and_answers_go_to_stdout() {
    let home = Home::new();
    let tiny = model("tiny-chat-q8_0.gguf").display().to_string();
    let mut command =
        home.airrun(&["batch", &tiny, "-", "-o", "-", "--format", "openai", "-t", "1"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for _ in 0..20 {
        writeln!(stdin, "{{\"prompt\": \"What is the capital of Peru?\", \"max_tokens\": 12}}")
            .unwrap();
    }
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let out = lines(&check_success(&output));
    assert_eq!(out.len(), 20);
    assert!(out.iter().all(|line| line["response"]["status_code"] == 200));
}
