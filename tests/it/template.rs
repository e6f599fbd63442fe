//! Chat templates: small ones in the manner of the common families, against fixed texts and, where
//! Python has jinja2, against jinja2 set up as transformers sets it up.

use std::io::Write;
use std::process::{Command, Stdio};

use airrun::engine::StopWords;
use airrun::engine::chat::{Message, Role};
use airrun::engine::template::{ChatTemplate, Origin, SpecialTokens, TemplateError};
use serde_json::{Value, json};

const CHATML: &str = include_str!("template/chatml.jinja");
const LLAMA2: &str = include_str!("template/llama2.jinja");
const LLAMA3: &str = include_str!("template/llama3.jinja");
const MISTRAL: &str = include_str!("template/mistral.jinja");
const GEMMA: &str = include_str!("template/gemma.jinja");
const PHI: &str = include_str!("template/phi.jinja");
const ZEPHYR: &str = include_str!("template/zephyr.jinja");
const COMMAND_R: &str = include_str!("template/command-r.jinja");
const DEEPSEEK: &str = include_str!("template/deepseek.jinja");
const QWEN: &str = include_str!("template/qwen.jinja");
const GPT_OSS: &str = include_str!("template/gpt-oss.jinja");

/// What Python prints and how its methods behave, in one place.
const PYTHON: &str = include_str!("template/python.jinja");

fn tokens() -> SpecialTokens {
    SpecialTokens { bos: Some("<s>".to_owned()), eos: Some("</s>".to_owned()), chatml: false }
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

const FAMILIES: [(&str, &str); 12] = [
    ("chatml", CHATML),
    ("llama2", LLAMA2),
    ("llama3", LLAMA3),
    ("mistral", MISTRAL),
    ("gemma", GEMMA),
    ("phi", PHI),
    ("zephyr", ZEPHYR),
    ("command-r", COMMAND_R),
    ("deepseek", DEEPSEEK),
    ("qwen", QWEN),
    ("gpt-oss", GPT_OSS),
    ("python", PYTHON),
];

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

#[test]
#[expect(clippy::print_stderr, reason = "a test that skips says so")]
fn families_render_as_with_jinja2() {
    let mut cases = Vec::new();
    let mut ours = Vec::new();
    for (name, source) in FAMILIES {
        for (at, turns) in CONVERSATIONS.iter().enumerate() {
            // The system message of such a template is folded, which jinja2 knows nothing of.
            if name == "gemma" && turns[0].0 == "system" {
                continue;
            }
            for (tools, open) in [(None, true), (None, false), (Some(tools()), true)] {
                let messages = messages(turns);
                let context = json!({
                    "messages": messages, "tools": tools, "documents": null,
                    "add_generation_prompt": open, "bos_token": "<s>", "eos_token": "</s>",
                });
                cases.push(json!({ "template": source, "context": context }));
                ours.push((name, at, template(source).render(&messages, tools.as_ref(), open)));
            }
        }
    }
    let Some(theirs) = reference(&json!(cases)) else {
        eprintln!("skipped: no python3 with jinja2 here; set AIRRUN_TEST_PYTHON to one");
        return;
    };
    let mut wrong = String::new();
    for ((name, at, ours), theirs) in ours.iter().zip(&theirs) {
        let same = match (ours, theirs["text"].as_str()) {
            (Ok(ours), Some(theirs)) => ours == theirs,
            (Err(TemplateError::Refused(why)), None) => theirs["error"] == why.as_str(),
            _ => false,
        };
        if !same {
            wrong += &format!("{name} {at}\nours   {ours:?}\ntheirs {theirs}\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// The results of `reference.py`; none where there is no Python with jinja2.
fn reference(cases: &Value) -> Option<Vec<Value>> {
    let python = std::env::var("AIRRUN_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let probe = Command::new(&python).args(["-c", "import jinja2"]).stderr(Stdio::null()).status();
    if !probe.is_ok_and(|status| status.success()) {
        return None;
    }
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

#[test]
fn hostile_templates_end_soon() {
    let deep = format!("{}{}", "{% if 1 %}".repeat(100_000), "{% endif %}".repeat(100_000));
    let brackets = format!("{{{{ {} }}}}", "[".repeat(100_000));
    let long = |begin: &str, piece: &str, end: &str| {
        format!("{{{{ {begin}{}{end} }}}}", piece.repeat(130_000 / piece.len()))
    };
    let nested = |print: &str| {
        "{% set ns = namespace(x=[]) %}{% for i in range(99999) %}\
            {% set ns.x = [ns.x] %}{% endfor %}"
            .to_owned()
            + &format!("{{{{ {print} }}}}")
    };
    let minus = long("", "-", "1");
    let not = long("", "not ", "1");
    let sum = long("1", "+1", "");
    let text = long("1", "~1", "");
    let power = long("1", "**1", "");
    let filters = long("1", "|abs", "");
    let fields = long("x", ".x", "");
    let calls = long("x", "()", "");
    let tests = long("1", " is odd", "");
    let either = long("1", " or 1", "");
    let choice = long("1", " if 0 else 1", "");
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
        "{% include 'chat' %}",
        "{% extends 'chat' %}",
        "{{ messages[99999999999999999999] }}",
        &deep,
        &brackets,
        &minus,
        &not,
        &sum,
        &text,
        &power,
        &filters,
        &fields,
        &calls,
        &tests,
        &either,
        &choice,
    ] {
        let start = std::time::Instant::now();
        let result = ChatTemplate::new(hostile, tokens());
        let shown: String = hostile.chars().take(60).collect();
        assert!(result.is_err(), "{shown}");
        assert!(start.elapsed().as_secs() < 10, "{shown}: {:?}", start.elapsed());
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
