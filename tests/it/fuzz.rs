//! The fuzz targets with inputs that were right before they were changed at random, some thousand of each. `AIRRUN_FUZZ=schema:600` goes
//! on with one of them for so many seconds; the input under way is in `target/tmp/fuzz-NAME` if that ends the process.
//! `AIRRUN_FUZZ=inputs:DIR` writes the right inputs of each to `DIR/NAME`, for fuzzers that coverage leads.

#[path = "../../fuzz/src/lib.rs"]
mod targets;

use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use airrun::source::sim::Dice;

/// Inputs of each target, in a test of everybody.
const INPUTS: usize = 400;

/// The longest input. (bytes)
const LONGEST: usize = 64 << 10;

/// Words that mean something to somebody.
const WORDS: [&str; 64] = [
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\"",
    "\\u0000",
    "\\ud800",
    "null",
    "true",
    "-1",
    "0",
    "1e999",
    "18446744073709551615",
    "9223372036854775808",
    "1e-400",
    "{{",
    "}}",
    "{%",
    "%}",
    "{#",
    "-%}",
    "for i in range(1000000)",
    "endfor",
    "if",
    "endif",
    "macro f()",
    "endmacro",
    "set x =",
    "loop",
    "messages",
    "|tojson",
    "|length",
    "[::-1]",
    "\"type\"",
    "\"object\"",
    "\"array\"",
    "\"string\"",
    "\"$ref\"",
    "\"#\"",
    "\"anyOf\"",
    "\"items\"",
    "\"properties\"",
    "\"pattern\"",
    "\"minItems\"",
    "\"maxItems\"",
    "\"enum\"",
    "::=",
    "root",
    "(",
    ")",
    "*",
    "+",
    "?",
    "{2,}",
    "|",
    "^",
    "$",
    "\n",
    "\u{0}",
    "\u{fffe}",
    "\u{1F600}",
    "\u{301}",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Right inputs of a target, to begin with.
fn seeds(name: &str) -> Vec<Vec<u8>> {
    let texts = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    match name {
        "gguf_index" => models(),
        "http_request" => crate::compat::endpoints()
            .into_iter()
            .map(|(_, mut base, more)| {
                base.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
                base.to_string().into_bytes()
            })
            .collect(),
        "template" => templates(),
        "schema" => texts(&[
            r##"{"type":"object","properties":{"a":{"$ref":"#/$defs/b"},"c":{"type":"array","items":{"type":"integer","minimum":-3,"maximum":70},"minItems":1,"maxItems":4}},"required":["a"],"$defs":{"b":{"anyOf":[{"type":"null"},{"$ref":"#"}]}},"additionalProperties":{"type":"number"}}"##,
            r#"{"type":"string","pattern":"^[a-z]{2,5}(x|\\d+)?$","minLength":2}"#,
            r#"{"oneOf":[{"const":"a"},{"enum":[1,null,"b"]},{"type":["string","boolean"],"maxLength":3}]}"#,
            r#"{"allOf":[{"properties":{"x":{"format":"date-time"}}},{"patternProperties":{"^y":{"type":"integer","multipleOf":3}}}],"unevaluatedProperties":false}"#,
            // Found by a fuzzer: a choice among what it is in, which had no end.
            r##"{"type": "?object", "required": ["next"], "additionalProperties": false, "properties": {"next": {"anyOf": [{"type": "nullif"}, {"$ref": "#"}]}}}"##,
        ]),
        "grammar" => texts(&[
            "root ::= (\"a\" | [b-d]+ x?)* \"\\n\"\nx ::= [^\\x00-\\x1F]{2,5} root | \"\"",
            "# \"\nroot ::= \"a\"{5,2}",
            "root ::= (\"a\"{5 # \n,2})",
            "root ::= a root \"x\" | \"y\"\na ::= b\nb ::= \"z\"? <|x|>",
            "root ::= item (\",\" item){0,3}\nitem ::= \"\\\"\" [a-zA-Z\\u00e4]* \"\\\"\"  # names",
        ]),
        "tokenizer" => tokenizers(),
        "manifest" => manifests(),
        "hub_list" => texts(&[
            r#"[{"type":"file","path":"a b/x.gguf","size":3,"oid":"aaaaaaaaaaaaaaaaaaaa","lfs":{"oid":"sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb","size":7}},{"type":"directory","path":"b"}]"#,
            r#"{"sha":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}"#,
        ]),
        "config" => texts(&[
            "ctx = 4096\nram = \"4GiB\"\n[serve]\nport = 8080\nhost = \"127.0.0.1\"\n[chat]\nctx = 512\n[models.\"m*\"]\ntemp = 0.5\nthreads = 2\n",
            "temp = 1\nverbose = true\n[models.m]\nseed = 7\n",
        ]),
        "conversation" => texts(&[
            r#"{"system":"Be brief.","messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":"Hello"}]}"#,
            r#"{"messages":[]}"#,
        ]),
        _ => panic!("no inputs for {name}"),
    }
}

/// Heads of models: one file, and two that are one.
fn models() -> Vec<Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let mut found = Vec::new();
    for name in ["llama", "qwen3moe", "gemma3"] {
        let path = dir.path().join("m.gguf");
        let spec = crate::tiny_models::all().iter().find(|spec| spec.name == name).unwrap();
        crate::tiny_models::write(spec, &path).unwrap();
        let head = std::fs::read(&path).unwrap();
        found.push([&[200], &head[..head.len().min(8 << 10)]].concat());
        if name == "llama" {
            let first = crate::tiny_models::split(&path, dir.path());
            let second = dir.path().join("split-00002-of-00002.gguf");
            let head = |path: &Path| std::fs::read(path).unwrap()[..4096].to_vec();
            found.push([&[255, 128][..], &head(&first), &head(&second)].concat());
        }
    }
    found
}

fn templates() -> Vec<Vec<u8>> {
    let dir = root().join("tests/it/template");
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = files.filter(|path| path.is_file()).collect();
    files.sort();
    let mut found: Vec<_> = files.iter().map(|path| std::fs::read(path).unwrap()).collect();
    found.retain(|text| text.len() < 16 << 10);
    found.push(
        b"{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m.content | trim }}{% if tools and loop.last %}{{ tools | tojson(indent=2) }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
            .to_vec(),
    );
    found
}

fn tokenizers() -> Vec<Vec<u8>> {
    let small = r#"{"version":"1.0","added_tokens":[{"id":0,"content":"<s>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}],"normalizer":{"type":"NFC"},"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true},"post_processor":null,"decoder":{"type":"ByteLevel"},"model":{"type":"BPE","vocab":{"<s>":0,"H":1,"e":2,"l":3,"o":4,"He":5,"ll":6},"merges":[["H","e"],["l","l"]]}}"#;
    let unigram = r#"{"added_tokens":[],"normalizer":{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"_"},{"type":"Replace","pattern":{"String":" "},"content":"_"}]},"pre_tokenizer":{"type":"Split","pattern":{"Regex":"\\s+|[^\\s]+"},"behavior":"Isolated","invert":false},"decoder":{"type":"Sequence","decoders":[{"type":"ByteFallback"},{"type":"Fuse"}]},"model":{"type":"Unigram","unk_id":0,"vocab":[["<unk>",0.0],["_",-1.5],["H",-2.0],["ello",-3.0]],"byte_fallback":true}}"#;
    [small, unigram].map(|text| text.as_bytes().to_vec()).to_vec()
}

fn manifests() -> Vec<Vec<u8>> {
    let layer = |kind: &str, n: u8| {
        let digest = char::from(b'0' + n).to_string().repeat(64);
        format!(
            r#"{{"mediaType":"application/vnd.ollama.image.{kind}","digest":"sha256:{digest}","size":3}}"#
        )
    };
    let kinds = ["model", "params", "system", "template", "messages"];
    let layers: Vec<String> = kinds.iter().zip(0..).map(|(kind, n)| layer(kind, n)).collect();
    let parts = [
        &format!(r#"{{"schemaVersion":2,"layers":[{}]}}"#, layers.join(",")),
        "GGUF",
        r#"{"temperature":0.5,"stop":["<|end|>"],"num_ctx":4096,"seed":1}"#,
        "Be brief.",
        "{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>{{ end }}",
        r#"[{"role":"user","content":"Hi"},{"role":"assistant","content":"Hello"}]"#,
    ];
    vec![parts.join("\0").into_bytes()]
}

/// Changes an input, with parts of another.
fn change(input: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    let at = dice.below(input.len() + 1);
    let end = (at + dice.below(64)).min(input.len());
    match dice.roll(11) {
        0 => input.truncate(at),
        1 => drop(input.drain(at..end)),
        2 => drop(input.splice(at..at, WORDS[dice.below(WORDS.len())].bytes())),
        3 => drop(input.splice(at..end, WORDS[dice.below(WORDS.len())].bytes())),
        4 if at < input.len() => input[at] ^= 1 << dice.roll(8),
        5 if at < input.len() => input[at] = dice.roll(256) as u8,
        6 => {
            let again = input[at..end].repeat(1 + dice.below(40));
            drop(input.splice(at..at, again));
        }
        7 | 8 => {
            let from = dice.below(other.len() + 1);
            let to = (from + dice.below(400)).min(other.len());
            drop(input.splice(at..end, other[from..to].iter().copied()));
        }
        9 => {
            // A number of a header.
            let number = [0, 1, u64::MAX, 1 << 31, 1 << 63, 1 << 40][dice.below(6)];
            for (byte, new) in input.iter_mut().skip(at).zip(number.to_le_bytes()) {
                *byte = new;
            }
        }
        _ => {
            // What is nested, nested more.
            let n = dice.below(300);
            let (open, close) = [("[", "]"), ("{\"a\":", "}"), ("(", ")")][dice.below(3)];
            drop(input.splice(end..end, close.repeat(n).bytes()));
            drop(input.splice(at..at, open.repeat(n).bytes()));
        }
    }
    input.truncate(LONGEST);
}

/// Runs a target, at least with so many inputs, and for so long.
fn drive(name: &str, target: fn(&[u8]), n: usize, time: Duration, kept: Option<&Path>) -> usize {
    let seeds = seeds(name);
    let mut dice = Dice::new(time.as_secs() + n as u64);
    let begin = Instant::now();
    let mut done = 0;
    while done < n || begin.elapsed() < time {
        let mut input = seeds[dice.below(seeds.len())].clone();
        let other = &seeds[dice.below(seeds.len())];
        // The first time round as they are.
        for _ in 0..if done < seeds.len() { 0 } else { 1 + dice.below(8) } {
            change(&mut input, other, &mut dice);
        }
        if let Some(kept) = kept {
            std::fs::write(kept, &input).unwrap();
        }
        let began = Instant::now();
        let ended = catch_unwind(|| target(&input));
        let text = || String::from_utf8_lossy(&input).into_owned();
        assert!(ended.is_ok(), "{name} panics on {:?}", text());
        if kept.is_some() {
            let took = began.elapsed();
            assert!(took < Duration::from_secs(20), "{name} takes {took:?} for {:?}", text());
        }
        done += 1;
    }
    done
}

#[test]
#[expect(clippy::print_stdout, reason = "what was done in ten minutes is worth a line")]
fn changed_inputs_are_understood_or_refused() {
    let long = std::env::var("AIRRUN_FUZZ").ok();
    let long = long.as_deref().and_then(|text| text.split_once(':'));
    for (name, target) in targets::TARGETS {
        match long {
            Some(("inputs", to)) => {
                let to = Path::new(to).join(name);
                std::fs::create_dir_all(&to).unwrap();
                for (i, input) in seeds(name).iter().enumerate() {
                    std::fs::write(to.join(i.to_string()), input).unwrap();
                }
            }
            Some((wanted, seconds)) if wanted == name => {
                let time = Duration::from_secs(seconds.parse().unwrap());
                let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{name}"));
                println!("{name}: {} inputs", drive(name, target, 1, time, Some(&kept)));
            }
            Some(_) => {}
            None => drop(drive(name, target, INPUTS, Duration::ZERO, None)),
        }
    }
}
