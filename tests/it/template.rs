//! Chat templates: small ones in the manner of the common families, against fixed texts and, where
//! Python has jinja2, against jinja2 set up as transformers sets it up.

use std::io::Write;
use std::process::{Command, Stdio};

use airrun::talk::StopWords;
use airrun::talk::template::{ChatTemplate, Origin, SpecialTokens, TemplateError};
use airrun::talk::{Message, Role};
use serde_json::{Value, json};

use crate::skip::skipped;

const CHATML: &str = include_str!("template/chatml.jinja");
const LLAMA2: &str = include_str!("template/llama2.jinja");
const MISTRAL: &str = include_str!("template/mistral.jinja");
const GEMMA: &str = include_str!("template/gemma.jinja");
const PHI: &str = include_str!("template/phi.jinja");
const ZEPHYR: &str = include_str!("template/zephyr.jinja");
const QWEN: &str = include_str!("template/qwen.jinja");

fn tokens() -> SpecialTokens {
    let (bos, eos) = (Some("<s>".to_owned()), Some("</s>".to_owned()));
    SpecialTokens { bos, eos, ..SpecialTokens::default() }
}

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::new(source, tokens()).unwrap_or_else(|e| panic!("{e}\n{source}"))
}

fn messages(turns: &[(&str, &str)]) -> Vec<Message> {
    let role = |name: &str| serde_json::from_value::<Role>(json!(name)).unwrap();
    turns.iter().map(|(name, content)| Message::new(role(name), *content)).collect()
}

fn tools() -> Value {
    json!([{ "type": "function", "function": {
        "name": "weather", "description": "Tells the weather, \"now\" <b>&</b>",
        "parameters": { "type": "object", "required": ["city"], "properties": {
            "city": { "type": "string", "description": "Größe 🦀" },
            "unit": { "type": "string", "enum": ["C", "F"], "default": "C" },
            "days": { "type": "array", "items": { "type": "integer" } },
            "deep": { "type": ["string", "null"], "maximum": 1.0 } } } } }])
}

/// The templates in `template/`, by the names of their files. Each is written in the manner of a family, and none is copied.
fn families() -> Vec<(String, String)> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/template");
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut families: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|e| e == "jinja"))
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read_to_string(&path).unwrap())
        })
        .collect();
    families.sort();
    assert!(families.len() > 30, "only {} families", families.len());
    families
}

/// Those that take no system message: it is folded into the first question, which jinja2 knows nothing of.
const FOLDING: [&str; 2] = ["gemma", "mistral-v1"];

/// A conversation with a call of a tool, and its answer.
fn call() -> Vec<Value> {
    let arguments = json!({ "city": "Köln", "days": [1, 2.5], "unit": null });
    let call = json!({ "id": "call_12345678", "type": "function",
        "function": { "name": "weather", "arguments": arguments } });
    vec![
        json!({ "role": "user", "content": "Weather?" }),
        json!({ "role": "assistant", "content": "", "tool_calls": [call] }),
        json!({ "role": "tool", "name": "weather", "tool_call_id": "call_12345678",
            "content": "{\"t\": 21}" }),
        json!({ "role": "assistant", "content": "21." }),
        json!({ "role": "user", "content": "Thanks" }),
    ]
}

const CONVERSATIONS: [&[(&str, &str)]; 5] = [
    &[("user", "Hello!")],
    &[
        ("user", " Hi \n"),
        ("assistant", "<think>\nhm\n</think>\n\nHo "),
        ("user", "Größe? 🦀 <|x|>"),
    ],
    &[("system", "Be brief."), ("user", "Hello!")],
    &[
        ("system", "S"),
        ("user", "1"),
        ("assistant", "2"),
        ("user", "3"),
        ("assistant", "4"),
        ("user", ""),
    ],
    &[("user", "a"), ("user", "b")],
];

/// A template, what it is filled with, and what came out.
struct Case {
    name: String,
    template: String,
    context: Value,
    ours: Result<String, TemplateError>,
}

fn context(messages: &Value, tools: Option<&Value>, open: bool) -> Value {
    json!({
        "messages": messages, "tools": tools, "documents": null, "add_generation_prompt": open,
        "bos_token": "<s>", "eos_token": "</s>",
    })
}

/// All families with all conversations.
fn conversations() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, source) in families() {
        let template = template(&source);
        let mut add = |at: &str, context: Value, ours| {
            let (name, template) = (format!("{name} {at}"), source.clone());
            cases.push(Case { name, template, context, ours });
        };
        for (at, turns) in CONVERSATIONS.iter().enumerate() {
            if turns[0].0 == "system" && FOLDING.contains(&name.as_str()) {
                continue;
            }
            for (tools, open) in [(None, true), (None, false), (Some(tools()), true)] {
                let messages = messages(turns);
                let ours = template.render(&messages, tools.as_ref(), open);
                add(&at.to_string(), context(&json!(messages), tools.as_ref(), open), ours);
            }
        }
        for tools in [None, Some(tools())] {
            let ours = template.render_json(&call(), tools.as_ref());
            add("call", context(&json!(call()), tools.as_ref(), true), ours);
        }
    }
    cases
}

/// Single expressions and statements, one on each line of a file: what real templates use, and the corners of it.
fn expressions() -> Vec<Case> {
    let talk = messages(&[("user", "Hi there")]);
    let lines = include_str!("template/expressions.txt").lines();
    let case = |line: &str| {
        let template = format!("{{{{ messages[0].content }}}}|{line}");
        let ours = ChatTemplate::new(&template, tokens());
        let ours = ours.and_then(|template| template.render(&talk, None, true));
        let context = context(&json!(talk), None, true);
        Case { name: line.to_owned(), template, context, ours }
    };
    lines.map(case).collect()
}

#[test]
fn families_render_as_with_jinja2() {
    let cases: Vec<Case> = conversations().into_iter().chain(expressions()).collect();
    let asked: Vec<Value> = cases
        .iter()
        .map(|case| json!({ "template": case.template, "context": case.context }))
        .collect();
    let Some(theirs) = reference(&json!(asked)) else {
        return skipped("no python3 with jinja2 here; set AIRRUN_TEST_PYTHON to one");
    };
    assert_eq!(theirs.len(), cases.len());
    let mut wrong = String::new();
    for (Case { name, ours, .. }, theirs) in cases.iter().zip(&theirs) {
        let same = match (ours, theirs["text"].as_str()) {
            (Ok(ours), Some(theirs)) => ours == theirs,
            (Err(TemplateError::Refused(why)), None) => theirs["error"] == why.as_str(),
            _ => false,
        };
        if !same {
            wrong += &format!("{name}\nours   {ours:?}\ntheirs {theirs}\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// One expression with a short conversation: what it is filled with, and what comes out.
pub(crate) fn rendered(source: &str) -> (Value, Result<String, TemplateError>) {
    let talk = messages(&[("user", "Hi there"), ("assistant", "Ho")]);
    let ours = ChatTemplate::new(source, tokens());
    let ours = ours.and_then(|template| template.render(&talk, None, true));
    (context(&json!(talk), None, true), ours)
}

/// The results of `reference.py`; none where there is no Python with jinja2.
pub(crate) fn reference(cases: &Value) -> Option<Vec<Value>> {
    // The system's own has what the system's packages bring, whatever else comes first.
    let named = std::env::var("AIRRUN_TEST_PYTHON").ok();
    let pythons = named.into_iter().chain(["python3", "/usr/bin/python3"].map(str::to_owned));
    let has_jinja2 = |python: &String| {
        let probe =
            Command::new(python).args(["-c", "import jinja2"]).stderr(Stdio::null()).status();
        probe.is_ok_and(|status| status.success())
    };
    let python = pythons.into_iter().find(has_jinja2)?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/template/reference.py");
    let mut child = Command::new(&python)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(cases.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "reference.py failed");
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn families_render_the_expected_text() {
    let talk = messages(&[("system", "S."), ("user", "Hi"), ("assistant", "Ho"), ("user", "Go")]);
    for (source, want) in [
        (
            CHATML,
            "<|im_start|>system\nS.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n\
             <|im_start|>assistant\nHo<|im_end|>\n\
             <|im_start|>user\nGo<|im_end|>\n<|im_start|>assistant\n",
        ),
        (LLAMA2, "<s>[INST] <<SYS>>\nS.\n<</SYS>>\n\nHi [/INST] Ho </s><s>[INST] Go [/INST]"),
        (MISTRAL, "<s>[INST] Hi[/INST] Ho</s>[INST] S.\n\nGo[/INST]"),
        (
            GEMMA,
            "<s><start_of_turn>user\nS.\n\nHi<end_of_turn>\n<start_of_turn>model\nHo<end_of_turn>\n\
             <start_of_turn>user\nGo<end_of_turn>\n<start_of_turn>model\n",
        ),
        (
            PHI,
            "<|system|>\nS.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\nHo<|end|>\n\
             <|user|>\nGo<|end|>\n<|assistant|>\n",
        ),
        (
            ZEPHYR,
            "<|system|>\nS.</s>\n<|user|>\nHi</s>\n<|assistant|>\nHo</s>\n\
             <|user|>\nGo</s>\n<|assistant|>\n",
        ),
    ] {
        assert_eq!(template(source).render(&talk, None, true).unwrap(), want);
    }
}

#[test]
fn a_template_that_drops_the_system_message_gets_it_with_the_first_question() {
    let source =
        "{% for m in messages if m.role != 'system' %}[{{ m.role }}]{{ m.content }}{% endfor %}";
    let talk = messages(&[("system", "S"), ("user", "U")]);
    assert_eq!(template(source).render(&talk, None, true).unwrap(), "[user]S\n\nU");
}

#[test]
fn a_template_that_wants_parts_gets_parts() {
    let source = "{% for m in messages %}{% for p in m.content if p.type == 'text' %}\
        {{ m.role }}:{{ p.text }};{% endfor %}{% endfor %}";
    let talk = messages(&[("system", "S"), ("user", "U")]);
    assert_eq!(template(source).render(&talk, None, true).unwrap(), "system:S;user:U;");
}

#[test]
fn files_without_a_template_get_chatml_or_the_plain_form() {
    let talk = messages(&[("system", "S"), ("user", "U"), ("assistant", "A"), ("user", "V")]);
    let chatml = ChatTemplate::choose(None, SpecialTokens { chatml: true, ..tokens() }).unwrap();
    assert_eq!(chatml.origin(), Origin::ChatMl);
    assert!(chatml.warning().unwrap().contains("no chat template"));
    assert_eq!(
        chatml.render(&talk[..2], None, true).unwrap(),
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n"
    );
    let plain = ChatTemplate::choose(Some("  \n"), tokens()).unwrap();
    assert_eq!(plain.origin(), Origin::Plain);
    assert_eq!(plain.stop(), Some("\nUser:"));
    assert_eq!(
        plain.render(&talk, None, true).unwrap(),
        "S\n\nUser: U\nAssistant: A\nUser: V\nAssistant:"
    );
    for broken in ["{% for %}", "{{ nothing() }}", "{{ raise_exception('no') }}", "{{ 1 + }}"] {
        let template = ChatTemplate::choose(Some(broken), tokens()).unwrap();
        assert_eq!(template.origin(), Origin::Plain, "{broken}");
        assert!(template.warning().unwrap().contains("cannot be used"), "{broken}");
    }
    assert!(ChatTemplate::choose(Some(QWEN), tokens()).unwrap().warning().is_none());
}

#[test]
fn training_marks_are_transparent() {
    let source = "{% for m in messages %}{%- if m.role == 'assistant' %}\
        {%- generation -%} {{ m.content }} {%- endgeneration %}\
        {% else %}{{ m.content }}{% endif %}{% endfor %}";
    let talk = messages(&[("user", "U"), ("assistant", "A")]);
    assert_eq!(template(source).render(&talk, None, false).unwrap(), "UA");
}

#[test]
fn the_date_is_todays() {
    let year = template("{{ messages[0].content }}{{ strftime_now('%Y') }}");
    let text = year.render(&messages(&[("user", "")]), None, true).unwrap();
    assert!(text.parse::<u32>().is_ok_and(|y| y >= 2025), "{text}");
    assert!(ChatTemplate::new("{{ strftime_now('%Q!') }}", tokens()).is_err());
}

/// Asserts that a template is refused, and soon.
#[track_caller]
fn check_hostile(hostile: &str) {
    let start = std::time::Instant::now();
    let result = ChatTemplate::new(hostile, tokens());
    let shown: String = hostile.chars().take(60).collect();
    assert!(result.is_err(), "{shown}");
    assert!(start.elapsed().as_secs() < 10, "{shown}: {:?}", start.elapsed());
}

#[test]
fn hostile_templates_end_soon() {
    let deep = format!("{}{}", "{% if 1 %}".repeat(100_000), "{% endif %}".repeat(100_000));
    let nested = |print: &str| {
        "{% set ns = namespace(x=[]) %}{% for i in range(99999) %}\
            {% set ns.x = [ns.x] %}{% endfor %}"
            .to_owned()
            + &format!("{{{{ {print} }}}}")
    };
    for hostile in [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        &nested("ns.x"),
        &nested("ns.x | tojson"),
        "{% for i in range(99999) %}{{ 'x' * 10000 }}{% endfor %}",
        "{{ 'x' * 99999999999 }}",
        "{{ range(99999999999) | list }}",
        "{{ '%999999999999d' | format(1) }}",
        "{{ '{:>999999999999}'.format(1) }}",
        "{{ 'a\nb' | indent(999999999999) }}",
        "{{ 'a\nb' | indent(width=999999999999) }}",
        "{{ [1] | batch(999999999999, 0) }}",
        "{{ [1] | slice(999999999999, 0) }}",
        "{{ 'a' | center(999999999999) }}",
        "{{ 'a'.ljust(99999999999) }}",
        "{{ 'a'.zfill(99999999999) }}",
        "{{ '%99999999999d' % 1 }}",
        "{{ '%s' % (1 / 0) }}",
        "{% include 'chat' %}",
        "{% extends 'chat' %}",
        "{{ messages[99999999999999999999] }}",
        &deep,
    ] {
        check_hostile(hostile);
    }
}

/// Expressions as long as they may be, and longer.
#[test]
fn endless_expressions_end_soon() {
    for repeat in [2700, 4000, 120_000] {
        for (begin, piece, end) in [
            ("", "[", ""),
            ("", "-", "1"),
            ("", "not ", "1"),
            ("1", "+1", ""),
            ("1", "~1", ""),
            ("1", "**1", ""),
            ("1", "|abs", ""),
            ("x", ".x", ""),
            ("x", "()", ""),
            ("1", " is odd", ""),
            ("1", " or 1", ""),
            ("1", " if 0 else 1", ""),
            ("'%s'", "%1", ""),
            ("'%s'", "%('%s',", ""),
            ("a", "%a", ""),
        ] {
            check_hostile(&format!("{{{{ {begin}{}{end} }}}}", piece.repeat(repeat)));
        }
    }
}

#[test]
fn a_stop_word_is_cut_wherever_the_pieces_end() {
    for pieces in [&["a\nUser: b"][..], &["a", "\n", "U", "ser", ":", "x"], &["a\nUs", "er:"]] {
        let mut stop = StopWords::new(Some("\nUser:"));
        let mut shown = String::new();
        let ended = pieces.iter().any(|piece| {
            let (text, end) = stop.push(piece);
            shown += &text;
            end.is_some()
        });
        assert!(ended);
        assert_eq!(shown, "a");
    }
    let mut stop = StopWords::new(Some("\nUser:"));
    assert_eq!(stop.push("x\nUse"), ("x".to_owned(), None));
    assert_eq!(stop.push("d é\n"), ("\nUsed é".to_owned(), None));
    assert_eq!(stop.finish(), "\n");
}
