//! The lines that a batch writes, and which of them are there already: a file that was begun goes on where it ends, after its last
//! whole line.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, Write};
use std::path::Path;

use serde_json::{Value, json};

use super::line::Name;
use crate::cli::args::batch::FormatArg;
use crate::engine::Finish;
use crate::engine::batch::Ended;

/// Where answers go.
pub(super) struct Out {
    to: Box<dyn Write>,
    format: FormatArg,
    model: String,
}

/// How a text ended: its text and end, or a sentence.
pub(super) type Outcome = Result<(String, Ended), String>;

impl Out {
    /// Opens `path`, or stdout for `-`. Returns also the lines that have their answers.
    pub(super) fn open(
        path: &Path,
        format: FormatArg,
        model: String,
    ) -> io::Result<(Out, HashSet<u64>)> {
        if path == Path::new("-") {
            return Ok((Out { to: Box::new(io::stdout()), format, model }, HashSet::new()));
        }
        // A device or a pipe has no answers, and may never come to an end of what it gives.
        if std::fs::metadata(path).is_ok_and(|there| !there.is_file()) {
            let file = OpenOptions::new().write(true).open(path)?;
            return Ok((Out { to: Box::new(file), format, model }, HashSet::new()));
        }
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let (done, whole) = answered(&file)?;
        // A line that was cut is written again.
        file.set_len(whole)?;
        file.seek(io::SeekFrom::End(0))?;
        Ok((Out { to: Box::new(file), format, model }, done))
    }

    /// Writes one answer, whole.
    pub(super) fn write(&mut self, name: &Name, result: &Outcome) -> io::Result<()> {
        let openai = match self.format {
            FormatArg::Auto => name.openai,
            FormatArg::Openai => true,
            FormatArg::Short => false,
        };
        let value = if openai { self.openai(name, result) } else { short(name, result) };
        let mut line = value.to_string();
        line.push('\n');
        self.to.write_all(line.as_bytes())?;
        self.to.flush()
    }

    fn openai(&self, name: &Name, result: &Outcome) -> Value {
        let request = format!("req_{}", name.line);
        let (status, body) = match result {
            Ok((text, ended)) => (200, self.body(name, text, ended)),
            Err(why) => (
                400,
                json!({"error": {"message": why, "type": "invalid_request_error", "param": null, "code": null}}),
            ),
        };
        json!({
            "id": format!("batch_req_{}", name.line),
            "custom_id": name.custom_id,
            "response": {"status_code": status, "request_id": request, "body": body},
            "error": null,
        })
    }

    fn body(&self, name: &Name, text: &str, ended: &Ended) -> Value {
        let finish = finish(ended);
        let (object, id, choice) = match name.chat {
            true => (
                "chat.completion",
                "chatcmpl",
                json!({"index": 0, "message": {"role": "assistant", "content": text},
                    "logprobs": null, "finish_reason": finish}),
            ),
            false => (
                "text_completion",
                "cmpl",
                json!({"index": 0, "text": text, "logprobs": null, "finish_reason": finish}),
            ),
        };
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        json!({
            "id": format!("{id}-{}", name.line),
            "object": object,
            "created": since.map_or(0, |since| since.as_secs()),
            "model": self.model,
            "choices": [choice],
            "usage": {
                "prompt_tokens": ended.n_prompt,
                "completion_tokens": ended.n_generated,
                "total_tokens": ended.n_prompt + ended.n_generated,
                "prompt_tokens_details": {"cached_tokens": ended.n_reused},
                "completion_tokens_details": {
                    "accepted_prediction_tokens": ended.drafted.accepted,
                    "rejected_prediction_tokens": ended.drafted.tried - ended.drafted.accepted,
                },
            },
        })
    }
}

fn short(name: &Name, result: &Outcome) -> Value {
    let mut line = json!({"line": name.line});
    if let Some(id) = &name.custom_id {
        line["custom_id"] = json!(id);
    }
    match result {
        Ok((text, ended)) => {
            line["text"] = json!(text);
            line["finish"] = json!(finish(ended));
            line["prompt_tokens"] = json!(ended.n_prompt);
            line["completion_tokens"] = json!(ended.n_generated);
        }
        Err(why) => line["error"] = json!(why),
    }
    line
}

fn finish(ended: &Ended) -> &'static str {
    match ended.finish {
        Finish::Stop => "stop",
        Finish::Length | Finish::ContextFull => "length",
        Finish::Interrupted => "interrupted",
    }
}

/// The longest line of answers. (bytes)
const MAX_ANSWER: u64 = 64 << 20;

/// The numbers of the lines that a file answers, and where its last whole line ends.
fn answered(file: &File) -> io::Result<(HashSet<u64>, u64)> {
    let mut reader = BufReader::new(file);
    let other = || {
        let why = "it holds something else than the answers of a batch";
        io::Error::new(io::ErrorKind::InvalidData, why)
    };
    let (mut done, mut whole) = (HashSet::new(), 0);
    let mut line = Vec::new();
    loop {
        line.clear();
        let n = (&mut reader).take(MAX_ANSWER).read_until(b'\n', &mut line)?;
        if n as u64 == MAX_ANSWER {
            return Err(other());
        }
        if n == 0 || line.last() != Some(&b'\n') {
            // The last answer may be cut; a text that never had an answer is not ours to replace.
            let ours = line.first().is_none_or(|&byte| byte == b'{');
            return if ours { Ok((done, whole)) } else { Err(other()) };
        }
        let blank = line.iter().all(u8::is_ascii_whitespace);
        match serde_json::from_slice::<Value>(&line).ok().as_ref().and_then(number) {
            Some(number) => drop(done.insert(number)),
            None if blank => {}
            None => return Err(other()),
        }
        whole += n as u64;
    }
}

/// The line that an answer belongs to.
fn number(answer: &Value) -> Option<u64> {
    let of_id = || answer["id"].as_str()?.strip_prefix("batch_req_")?.parse().ok();
    answer["line"].as_u64().or_else(of_id)
}
