//! Answers of all families, in pieces of every size.

use super::*;
use serde_json::{Value, json};

/// Templates' marks, and what a model says of a thought and two calls; as in `tests/it/speech`, without a model.
fn tools() -> Arc<Tools> {
    let tool = |name: &str| {
        json!({"type": "function", "function": {"name": name, "parameters": {
            "type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}}})
    };
    Arc::new(Tools { list: vec![tool("weather"), tool("time")], ..Tools::default() })
}

fn dialect(template: &str) -> Arc<Dialect> {
    Arc::new(Dialect::of(template, true, &|_| false))
}

/// What is understood of `answer`, which must be the same for pieces of every size.
fn heard(template: &str, prompt: &str, answer: &str, live: bool, cut: bool) -> Spoken {
    let mut results: Vec<Spoken> = Vec::new();
    let chars: Vec<char> = answer.chars().collect();
    for size in 1..=chars.len().max(1) {
        let mut reader = reader(&dialect(template), prompt, Some(&tools()), live);
        let mut spoken = Spoken::default();
        for piece in chars.chunks(size) {
            reader.push(&piece.iter().collect::<String>()).into_iter().for_each(|s| spoken.add(s));
        }
        reader.finish(cut).into_iter().for_each(|said| spoken.add(said));
        if !results.contains(&spoken) {
            results.push(spoken);
        }
    }
    assert_eq!(results.len(), 1, "{answer}: {results:#?}");
    results.remove(0)
}

fn calls(spoken: &Spoken) -> Vec<(&str, Value)> {
    let of = |call: &Call| serde_json::from_str(&call.arguments).unwrap_or(Value::Null);
    spoken.calls.iter().map(|call| (call.name.as_str(), of(call))).collect()
}

#[test]
fn text_around_calls_stays() {
    let time =
        "<tool_call>\n{\"name\": \"time\", \"arguments\": {\"zone\": \"UTC\"}}\n</tool_call>";
    for (answer, n, text) in [
        (format!("Well.{time}\nI will tell you."), 1, "Well.\nI will tell you."),
        (format!("{time}\nNow the second.\n{time}"), 2, "Now the second."),
        (
            format!(
                "<tool_call>\n{{\"name\": \"time\", \"arguments\": {{\"a\": oops}}}}\n</tool_call>\n{time}"
            ),
            1,
            "<tool_call>\n{\"name\": \"time\", \"arguments\": {\"a\": oops}}\n</tool_call>",
        ),
        (
            format!("{time}\n<tool_call>\n{{\"name\": \"time\", \"argum"),
            1,
            "<tool_call>\n{\"name\": \"time\", \"argum",
        ),
        (format!("I could write <tool_call> here.\n{time}"), 1, "I could write <tool_call> here."),
        ("<tool_call>".to_owned(), 0, "<tool_call>"),
        (" a < b \n".to_owned(), 0, " a < b \n"),
    ] {
        let spoken = heard("<tool_call>", "", &answer, false, false);
        assert_eq!((spoken.calls.len(), spoken.text.as_str()), (n, text), "{answer}");
    }
}

#[test]
fn calls_that_are_cut_hold_what_was_said() {
    let begun = "<tool_call>\n{\"name\": \"time\", \"arguments\": {\"zone\": \"U";
    for live in [true, false] {
        let spoken = heard("<tool_call>", "", begun, live, true);
        assert_eq!(spoken.calls[0].arguments, "{\"zone\": \"U");
        assert_eq!(spoken.text, "");
        assert_eq!(heard("<tool_call>", "", "<tool_call>\n{\"na", live, true), Spoken::default());
    }
    assert_eq!(heard("<tool_call>", "", begun, false, false).text, begun);
}

#[test]
fn calls_that_are_cut_hold_what_is_certain_where_they_are_read_as_a_whole() {
    let braces = "<|tool_call>call:weather{";
    for (template, answer, want) in [
        ("func_name1(", "[weather(city=\"Os", "{\"city\":\"Os"),
        ("func_name1(", "[weather(city='It\\'s \\", "{\"city\":\"It's "),
        ("func_name1(", "[weather(city='\\u00", "{\"city\":\""),
        ("func_name1(", "[weather(city='Oslo', days=2", "{\"city\":\"Oslo\""),
        (
            "func_name1(",
            "[weather(city='Oslo', days=[1, {'a': 'x",
            "{\"city\":\"Oslo\",\"days\":[1,{\"a\":\"x",
        ),
        ("func_name1(", "[weather(city='Oslo', days={'ke", "{\"city\":\"Oslo\""),
        ("func_name1(", "[weather(days=2", ""),
        ("<|tool_call>", &format!("{braces}city:<|\"|>Oslo<|\""), "{\"city\":\"Oslo"),
        ("<|tool_call>", &format!("{braces}city:<|\"|>Oslo<|\"|>,da"), "{\"city\":\"Oslo\""),
    ] {
        for live in [true, false] {
            let spoken = heard(template, "", answer, live, true);
            assert_eq!(spoken.calls.len(), 1, "{answer}: {spoken:?}");
            assert_eq!(spoken.calls[0].arguments, want, "{answer}");
        }
    }
}

#[test]
fn odd_arguments_become_objects() {
    for (given, want) in [
        ("\"{\\\"city\\\": \\\"Oslo\\\"}\"", json!({"city": "Oslo"})),
        ("null", json!({})),
        ("\"\"", json!({})),
        ("{}", json!({})),
    ] {
        for answer in [
            format!("<tool_call>{{\"name\": \"weather\", \"arguments\": {given}}}</tool_call>"),
            format!("<tool_call>{{\"arguments\": {given}, \"name\": \"weather\"}}</tool_call>"),
        ] {
            let spoken = heard("<tool_call>", "", &answer, false, false);
            assert_eq!(calls(&spoken), [("weather", want.clone())], "{answer}");
        }
    }
    for given in ["[1]", "5", "\"x\"", "true"] {
        let answer =
            format!("<tool_call>{{\"name\": \"weather\", \"arguments\": {given}}}</tool_call>");
        let spoken = heard("<tool_call>", "", &answer, false, false);
        assert_eq!((spoken.calls.len(), spoken.text), (0, answer));
    }
}

#[test]
fn thoughts_are_told_apart() {
    let thought = |t: &str, x: &str| Spoken { thought: t.into(), text: x.into(), calls: vec![] };
    let think = "<think> </think>";
    for (template, prompt, answer, want) in [
        (think, "<think>\n", "Two.\n</think>\n\nFour.", thought("Two.", "Four.")),
        (think, "", "<think>\nTwo.\n</think>\n\nFour.\n", thought("Two.", "Four.")),
        (think, "<think>\n\n</think>\n\n", "Four. <think>", thought("", "Four. <think>")),
        (think, "<think>", "Two", thought("Two", "")),
        (think, "", "Say <think>", thought("", "Say <think>")),
        ("[THINK]", "", "[THINK]Two.[/THINK]Four.", thought("Two.", "Four.")),
        (
            "Here are my reasoning steps:",
            "Here are my reasoning steps:\n",
            "Two.\n[BEGIN FINAL RESPONSE]\nFour.",
            thought("Two.", "Four."),
        ),
        (
            "<|channel|><|message|>",
            "<|start|>assistant",
            "<|channel|>analysis<|message|>Two.<|end|><|start|>assistant<|channel|>final<|message|>Four.",
            thought("Two.", "Four."),
        ),
        (
            "<|channel|><|message|>",
            "<|start|>assistant",
            "<|channel|>final<|message|>Four.",
            thought("", "Four."),
        ),
        ("<|channel|><|message|>", "<|start|>assistant", "Four.", thought("", "Four.")),
        (
            "<|START_RESPONSE|><|END_RESPONSE|>",
            "",
            "<|START_RESPONSE|>Four.<|END_RESPONSE|>",
            thought("", "Four."),
        ),
    ] {
        assert_eq!(heard(template, prompt, answer, true, false), want, "{answer}");
    }
    let both = "<think>I write <tool_call> here\n<tool_call>\n{\"name\": \"time\", \"arguments\": {}}\n</tool_call>";
    let spoken = heard("<think> <tool_call>", "", both, true, false);
    assert_eq!((spoken.thought.as_str(), spoken.calls.len()), ("I write <tool_call> here", 1));
}

/// What families say, beside what they mean.
const FAMILIES: &[(&str, &str, &str)] = &[
    (
        "<tool_call>",
        "",
        "<tool_call>\n{\"name\": \"weather\", \"arguments\": @}\n</tool_call>\n<tool_call>\n{\"name\": \"time\", \"arguments\": {}}\n</tool_call>",
    ),
    (
        "[TOOL_CALLS]",
        "",
        "[TOOL_CALLS][{\"name\": \"weather\", \"arguments\": @, \"id\": \"abcdefghi\"}, {\"name\": \"time\", \"arguments\": {}, \"id\": \"abcdefghj\"}]",
    ),
    ("[TOOL_CALLS][ARGS]", "", "[TOOL_CALLS]weather[ARGS]@[TOOL_CALLS]time[ARGS]{}"),
    (
        "[TOOL_CALLS][ARGS][CALL_ID]",
        "",
        "[TOOL_CALLS]weather[CALL_ID]abcdefghi[ARGS]@[TOOL_CALLS]time[CALL_ID]abcdefghj[ARGS]{}",
    ),
    ("", "", "{\"name\": \"weather\", \"parameters\": @}; {\"name\": \"time\"}"),
    (
        "<|python_tag|>",
        "",
        "<|python_tag|>{\"type\": \"function\", \"name\": \"weather\", \"parameters\": @}<|eom_id|>",
    ),
    ("<function=", "", "<function=weather>@</function><function=time>{}</function>"),
    (">>>all", ">>>", "weather\n@>>>time\n{}"),
    (
        "<|START_ACTION|>",
        "",
        "<|START_ACTION|>[\n {\"tool_call_id\": \"0\", \"tool_name\": \"weather\", \"parameters\": @},\n {\"tool_call_id\": \"1\", \"tool_name\": \"time\", \"parameters\": {}}\n]<|END_ACTION|>",
    ),
    (
        "Action: tool_name",
        "",
        "Action: ```json\n[{\"tool_name\": \"weather\", \"parameters\": @}]\n```",
    ),
    (
        "<tool_call><function=<parameter=",
        "",
        "<tool_call>\n<function=weather>\n<parameter=city>\nOslo\n</parameter>\n<parameter=days>\n2\n</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=time>\n</function>\n</tool_call>",
    ),
    (
        "<seed:tool_call><function=<parameter=",
        "",
        "<seed:tool_call>\n<function=weather>\n<parameter=city>Oslo</parameter>\n<parameter=days>2</parameter>\n</function>\n</seed:tool_call>",
    ),
    (
        "<minimax:tool_call>",
        "",
        "<minimax:tool_call>\n<invoke name=\"weather\">\n<parameter name=\"city\">Oslo</parameter>\n<parameter name=\"days\">2</parameter>\n</invoke>\n<invoke name=\"time\">\n</invoke>\n</minimax:tool_call>",
    ),
    (
        "]<]minimax[>[",
        "",
        "]<]minimax[>[<tool_call>\n]<]minimax[>[<invoke name=\"weather\">]<]minimax[>[<city>Oslo]<]minimax[>[</city>]<]minimax[>[<days>2]<]minimax[>[</days>]<]minimax[>[</invoke>\n]<]minimax[>[</tool_call>",
    ),
    (
        "DSML function_calls",
        "",
        "<\u{ff5c}DSML\u{ff5c}function_calls>\n<\u{ff5c}DSML\u{ff5c}invoke name=\"weather\">\n<\u{ff5c}DSML\u{ff5c}parameter name=\"city\" string=\"true\">Oslo</\u{ff5c}DSML\u{ff5c}parameter>\n<\u{ff5c}DSML\u{ff5c}parameter name=\"days\" string=\"false\">2</\u{ff5c}DSML\u{ff5c}parameter>\n</\u{ff5c}DSML\u{ff5c}invoke>\n</\u{ff5c}DSML\u{ff5c}function_calls>",
    ),
    (
        "<\u{ff5c}tool\u{2581}calls\u{2581}begin\u{ff5c}>",
        "",
        "<\u{ff5c}tool\u{2581}calls\u{2581}begin\u{ff5c}><\u{ff5c}tool\u{2581}call\u{2581}begin\u{ff5c}>function<\u{ff5c}tool\u{2581}sep\u{ff5c}>weather\n```json\n@\n```<\u{ff5c}tool\u{2581}call\u{2581}end\u{ff5c}>\n<\u{ff5c}tool\u{2581}call\u{2581}begin\u{ff5c}>function<\u{ff5c}tool\u{2581}sep\u{ff5c}>time\n```json\n{}\n```<\u{ff5c}tool\u{2581}call\u{2581}end\u{ff5c}><\u{ff5c}tool\u{2581}calls\u{2581}end\u{ff5c}>",
    ),
    (
        "<\u{ff5c}tool\u{2581}calls\u{2581}begin\u{ff5c}>",
        "",
        "<\u{ff5c}tool\u{2581}calls\u{2581}begin\u{ff5c}><\u{ff5c}tool\u{2581}call\u{2581}begin\u{ff5c}>weather<\u{ff5c}tool\u{2581}sep\u{ff5c}>@<\u{ff5c}tool\u{2581}call\u{2581}end\u{ff5c}><\u{ff5c}tool\u{2581}calls\u{2581}end\u{ff5c}>",
    ),
    (
        "<|tool_calls_section_begin|>",
        "",
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.weather:0<|tool_call_argument_begin|>@<|tool_call_end|><|tool_call_begin|>functions.time:1<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|>",
    ),
    (
        "<|open|><|close|><|sep|>",
        "",
        "<|open|>tools<|sep|><|open|>call tool=\"weather\" index=\"1\"<|sep|><|open|>argument key=\"city\" type=\"string\"<|sep|>Oslo<|close|>argument<|sep|><|open|>argument key=\"days\" type=\"number\"<|sep|>2<|close|>argument<|sep|><|close|>call<|sep|><|close|>tools<|sep|>",
    ),
    (
        "<tool_call><arg_key>",
        "",
        "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Oslo</arg_value>\n<arg_key>days</arg_key>\n<arg_value>2</arg_value>\n</tool_call>\n<tool_call>time\n</tool_call>",
    ),
    (
        "<tool_call><arg_key>",
        "",
        "<tool_call>weather<arg_key>city</arg_key><arg_value>Oslo</arg_value><arg_key>days</arg_key><arg_value>2</arg_value></tool_call>",
    ),
    (
        "opensource arg_key",
        "",
        "<tool_calls:opensource>\n<tool_call:opensource>weather<tool_sep:opensource>\n<arg_key:opensource>city</arg_key:opensource>\n<arg_value:opensource>Oslo</arg_value:opensource>\n<arg_key:opensource>days</arg_key:opensource>\n<arg_value:opensource>2</arg_value:opensource>\n</tool_call:opensource>\n</tool_calls:opensource>",
    ),
    (
        "<|tool_calls|>",
        "",
        "<|tool_calls|><|tool_call:begin|>call12345<|tool_call:name|>weather<|tool_call:args|>@<|tool_call:end|><|calls|>",
    ),
    (
        "<|tool_call_start|>",
        "",
        "<|tool_call_start|>[weather(city='Oslo', days=2), time()]<|tool_call_end|>",
    ),
    ("func_name1(", "", "[weather(city=\"Oslo\", days=2)]"),
    (
        "<|tool_call>",
        "",
        "<|tool_call>call:weather{city:<|\"|>Oslo<|\"|>,days:2}<tool_call|><|tool_call>call:time{}<tool_call|>",
    ),
    (
        "<start_function_call>",
        "",
        "<start_function_call>call:weather{city:<escape>Oslo<escape>,days:2}<end_function_call>",
    ),
    (
        "<tool_calls>",
        "",
        "<tool_calls>\n{\"name\": \"weather\", \"arguments\": @}\n{\"name\": \"time\", \"arguments\": {}}\n</tool_calls>",
    ),
    (
        "<TOOLCALL>",
        "",
        "<TOOLCALL>[{\"name\": \"weather\", \"arguments\": @}, {\"name\": \"time\", \"arguments\": {}}]</TOOLCALL>",
    ),
    ("<|tool_call|>", "", "<|tool_call|>[{\"name\": \"weather\", \"arguments\": @}]"),
    ("<|tools_prefix|>", "", "<|tools_prefix|>[{\"weather\": @}, {\"time\": {}}]<|tools_suffix|>"),
    (
        "<|function_call|>",
        "",
        "<|function_call|>{\"name\": \"weather\", \"arguments\": @}<|message_sep|>\n\n",
    ),
    (
        "<|message_sep|>function call<|role_sep|>",
        "",
        "<|message_sep|>\n\nfunction call<|role_sep|>\n{\"name\": \"weather\", \"arguments\": @}<|message_sep|>\n\n",
    ),
    ("functools[", "", " functools[{\"name\": \"weather\", \"arguments\": @}]"),
    (
        "<function name=\"",
        "",
        "<function name=\"weather\"><param name=\"city\">Oslo</param><param name=\"days\">2</param></function>\n<function name=\"time\"></function>",
    ),
    (
        "<atem:function_calls><|message|>to=self",
        "<|start|>assistant",
        " to=weather<|message|><atem:function_calls>\n<atem:invoke name=\"weather\">\n<atem:parameter name=\"city\">Oslo</atem:parameter>\n<atem:parameter name=\"days\">2</atem:parameter>\n</atem:invoke>\n</atem:function_calls><|eom|>",
    ),
    (
        "<|channel|><|message|>",
        "<|start|>assistant",
        "<|channel|>commentary to=functions.weather <|constrain|>json<|message|>@<|call|>",
    ),
    (
        "<|channel|><|message|>",
        "<|start|>assistant",
        " to=functions.weather<|channel|>commentary json<|message|>@<|call|>",
    ),
];

#[test]
fn all_families_call() {
    for (template, prompt, answer) in FAMILIES {
        let answer = answer.replace('@', "{\"city\": \"Oslo\", \"days\": 2}");
        for live in [false, true] {
            let spoken = heard(template, prompt, &answer, live, false);
            let mut want = vec![("weather", json!({"city": "Oslo", "days": 2}))];
            if answer.contains("time") {
                want.push(("time", json!({})));
            }
            assert_eq!(calls(&spoken), want, "{answer}");
            assert_eq!(spoken.text, "", "{answer}");
        }
    }
}
