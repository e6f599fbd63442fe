//! The forms in which models say what is no text: a table of marks, and what a call looks like between them. Each form is described
//! once; the reader and the grammars follow the description.

/// A part of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// These letters; blanks before them do not matter.
    Lit(&'static str),
    /// These letters, or not.
    Maybe(&'static str),
    /// Whatever comes before these letters, and they.
    Past(&'static str),
    /// The call's own name.
    Id,
    /// The tool's name.
    Name,
    /// `functions.NAME:0`: both.
    NameAndId,
    /// What the tool is given.
    Given(Given),
}

/// How it is written what a tool is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Given {
    /// A JSON object.
    Json,
    /// An object that holds name and arguments.
    Whole,
    /// A pair of marks for each parameter.
    Tagged(&'static Tags),
    /// `{city:<|"|>Oslo<|"|>,days:2}`
    Braces(&'static str),
    /// `(city='Oslo', days=2)`
    Python,
}

/// The marks around a parameter: `open` KEY `key_end` ... `value` VALUE `close`, where `{}` is the key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tags {
    pub(super) open: &'static str,
    pub(super) key_end: &'static str,
    pub(super) value: &'static str,
    pub(super) close: &'static str,
}

pub(super) type Pattern = &'static [Step];

/// Where calls begin and end.
#[derive(Debug)]
pub(super) struct Form {
    /// What begins them; nothing where an answer that begins like a call is one.
    pub(super) open: &'static str,
    /// Whether the pattern begins with `open` itself.
    pub(super) within: bool,
    pub(super) close: &'static [&'static str],
    pub(super) calls: &'static [Call],
}

/// One way to write a call, and the words by which a template shows that it teaches it.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) taught_by: &'static [&'static str],
    pub(super) steps: Pattern,
}

const fn call(taught_by: &'static [&'static str], steps: Pattern) -> Call {
    Call { taught_by, steps }
}

use Given::{Braces, Json, Python, Tagged, Whole};
use Step::{Given as G, Id, Lit, Maybe, Name, NameAndId, Past};

const PARAMETER: Tags =
    Tags { open: "<parameter=", key_end: ">", value: "", close: "</parameter>" };
const NAMED_PARAMETER: Tags =
    Tags { open: "<parameter name=\"", key_end: "\"", value: ">", close: "</parameter>" };
const PARAM: Tags = Tags { open: "<param name=\"", key_end: "\"", value: ">", close: "</param>" };
const ATEM: Tags =
    Tags { open: "<atem:parameter name=\"", key_end: "\"", value: ">", close: "</atem:parameter>" };
/// `<｜DSML｜parameter name="city" string="true">Oslo</｜DSML｜parameter>`: the marks of a language in XML's manner, named in each.
macro_rules! marked {
    ($name:literal) => {
        Tags {
            open: concat!("<\u{ff5c}", $name, "\u{ff5c}parameter name=\""),
            key_end: "\"",
            value: ">",
            close: concat!("</\u{ff5c}", $name, "\u{ff5c}parameter>"),
        }
    };
}
/// A call in it.
macro_rules! marked_invoke {
    ($name:literal, $tags:ident) => {
        call(
            &[],
            &[
                Lit(concat!("<\u{ff5c}", $name, "\u{ff5c}invoke name=\"")),
                Name,
                Lit("\">"),
                G(Tagged(&$tags)),
                Lit(concat!("</\u{ff5c}", $name, "\u{ff5c}invoke>")),
            ],
        )
    };
}
const DSML: Tags = marked!("DSML");
const GCML: Tags = marked!("GCML");
const ARG: Tags =
    Tags { open: "<arg_key>", key_end: "</arg_key>", value: "<arg_value>", close: "</arg_value>" };
const HUNYUAN: Tags = Tags {
    open: "<arg_key:opensource>",
    key_end: "</arg_key:opensource>",
    value: "<arg_value:opensource>",
    close: "</arg_value:opensource>",
};
const KIMI3: Tags = Tags {
    open: "<|open|>argument key=\"",
    key_end: "\"",
    value: "<|sep|>",
    close: "<|close|>argument<|sep|>",
};
const MINIMAX3: Tags =
    Tags { open: "]<]minimax[>[<", key_end: ">", value: "", close: "]<]minimax[>[</{}>" };

const OBJECT: Call = call(&[], &[G(Whole)]);
const CODER: Call = call(
    &["<function=", "<parameter="],
    &[Lit("<function="), Name, Lit(">"), G(Tagged(&PARAMETER)), Lit("</function>")],
);
const GLM: Call = call(&["<arg_key>"], &[Name, G(Tagged(&ARG))]);
const INVOKE: Call = call(
    &["<invoke name="],
    &[Lit("<invoke name=\""), Name, Lit("\">"), G(Tagged(&NAMED_PARAMETER)), Lit("</invoke>")],
);
const DSML_INVOKE: Call = marked_invoke!("DSML", DSML);
const GCML_INVOKE: Call = marked_invoke!("GCML", GCML);
/// A tool of one of several servers of the Model Context Protocol.
const MCP_TOOL: Call = call(
    &[],
    &[
        Lit("<server_name>"),
        Past("</server_name>"),
        Lit("<tool_name>"),
        Name,
        Lit("</tool_name>"),
        Lit("<arguments>"),
        G(Json),
        Lit("</arguments>"),
    ],
);
const ATEM_INVOKE: Call = call(
    &[],
    &[Lit("<atem:invoke name=\""), Name, Lit("\">"), G(Tagged(&ATEM)), Lit("</atem:invoke>")],
);
const CALL_BEGIN: &str = "<\u{ff5c}tool\u{2581}call\u{2581}begin\u{ff5c}>";
const CALL_END: &str = "<\u{ff5c}tool\u{2581}call\u{2581}end\u{ff5c}>";
const SEP: &str = "<\u{ff5c}tool\u{2581}sep\u{ff5c}>";
const DEEPSEEK3: Call = call(
    &["```json"],
    &[
        Lit(CALL_BEGIN),
        Lit("function"),
        Lit(SEP),
        Name,
        Lit("```json"),
        G(Json),
        Lit("```"),
        Maybe(CALL_END),
    ],
);
const DEEPSEEK31: Call = call(&[], &[Lit(CALL_BEGIN), Name, Lit(SEP), G(Json), Maybe(CALL_END)]);
const KIMI: Call = call(
    &[],
    &[
        Lit("<|tool_call_begin|>"),
        NameAndId,
        Lit("<|tool_call_argument_begin|>"),
        G(Json),
        Lit("<|tool_call_end|>"),
    ],
);
const KIMI3_CALL: Call = call(
    &[],
    &[
        Lit("<|open|>call tool=\""),
        Name,
        Lit("\""),
        Past("<|sep|>"),
        G(Tagged(&KIMI3)),
        Lit("<|close|>call<|sep|>"),
    ],
);
const MINIMAX3_CALL: Call = call(
    &[],
    &[
        Lit("]<]minimax[>[<invoke name=\""),
        Name,
        Lit("\">"),
        G(Tagged(&MINIMAX3)),
        Lit("]<]minimax[>[</invoke>"),
    ],
);
const HUNYUAN_CALL: Call = call(
    &[],
    &[
        Lit("<tool_call:opensource>"),
        Name,
        Maybe("<tool_sep:opensource>"),
        G(Tagged(&HUNYUAN)),
        Lit("</tool_call:opensource>"),
    ],
);
const SOLAR: Call = call(
    &[],
    &[
        Lit("<|tool_call:begin|>"),
        Id,
        Lit("<|tool_call:name|>"),
        Name,
        Lit("<|tool_call:args|>"),
        G(Json),
        Lit("<|tool_call:end|>"),
    ],
);
const PYTHONIC: Call = call(&[], &[Name, G(Python)]);

const fn form(open: &'static str, close: &'static [&'static str], calls: &'static [Call]) -> Form {
    Form { open, within: false, close, calls }
}

const fn within(open: &'static str, calls: &'static [Call]) -> Form {
    Form { open, within: true, close: &[], calls }
}

/// All of them. A form is one of a model's if the model's template or vocabulary knows what opens it.
pub(super) static FORMS: &[Form] = &[
    form("<tool_call>", &["</tool_call>"], &[CODER, GLM, INVOKE, OBJECT]),
    form("<seed:tool_call>", &["</seed:tool_call>"], &[CODER]),
    form("<minimax:tool_call>", &["</minimax:tool_call>"], &[INVOKE]),
    form("<atem:function_calls>", &["</atem:function_calls>"], &[ATEM_INVOKE]),
    form("]<]minimax[>[<tool_call>", &["]<]minimax[>[</tool_call>"], &[MINIMAX3_CALL]),
    form(
        "<\u{ff5c}DSML\u{ff5c}function_calls>",
        &["</\u{ff5c}DSML\u{ff5c}function_calls>"],
        &[DSML_INVOKE],
    ),
    form(
        "<\u{ff5c}DSML\u{ff5c}tool_calls>",
        &["</\u{ff5c}DSML\u{ff5c}tool_calls>"],
        &[DSML_INVOKE],
    ),
    form(
        "<\u{ff5c}GCML\u{ff5c}tool_calls>",
        &["</\u{ff5c}GCML\u{ff5c}tool_calls>"],
        &[GCML_INVOKE],
    ),
    form("<use_mcp_tool>", &["</use_mcp_tool>"], &[MCP_TOOL]),
    form(
        "<\u{ff5c}tool\u{2581}calls\u{2581}begin\u{ff5c}>",
        &["<\u{ff5c}tool\u{2581}calls\u{2581}end\u{ff5c}>"],
        &[DEEPSEEK3, DEEPSEEK31],
    ),
    form("<|tool_calls_section_begin|>", &["<|tool_calls_section_end|>"], &[KIMI]),
    form("<|open|>tools<|sep|>", &["<|close|>tools<|sep|>"], &[KIMI3_CALL]),
    form("<tool_calls:opensource>", &["</tool_calls:opensource>"], &[HUNYUAN_CALL]),
    form("<|tool_calls|>", &["<|calls|>"], &[SOLAR]),
    form(
        "[TOOL_CALLS]",
        &[],
        &[
            call(&["[CALL_ID]"], &[Name, Lit("[CALL_ID]"), Id, Lit("[ARGS]"), G(Json)]),
            call(&["[ARGS]"], &[Name, Lit("[ARGS]"), G(Json)]),
            OBJECT,
        ],
    ),
    form("<tool_calls>", &["</tool_calls>"], &[OBJECT]),
    form("<TOOLCALL>", &["</TOOLCALL>"], &[OBJECT]),
    form("<|tool_call|>", &["<|/tool_call|>", "</|tool_call|>"], &[OBJECT]),
    form("<|tools_prefix|>", &["<|tools_suffix|>"], &[OBJECT]),
    form("<|START_ACTION|>", &["<|END_ACTION|>"], &[OBJECT]),
    form("Action:", &["```"], &[OBJECT]),
    form("functools", &[], &[OBJECT]),
    form("<|action_start|><|plugin|>", &["<|action_end|>"], &[OBJECT]),
    form("<|function_call|>", &["<|message_sep|>"], &[OBJECT]),
    form("function call<|role_sep|>", &["<|message_sep|>"], &[OBJECT]),
    form("<|tool_call_start|>", &["<|tool_call_end|>"], &[PYTHONIC, OBJECT]),
    form(
        "<|tool_call>",
        &["<tool_call|>"],
        &[call(&[], &[Lit("call:"), Name, G(Braces("<|\"|>"))])],
    ),
    form(
        "<start_function_call>",
        &["<end_function_call>"],
        &[call(&[], &[Lit("call:"), Name, G(Braces("<escape>"))])],
    ),
    form("<|python_tag|>", &["<|eom_id|>"], &[OBJECT, PYTHONIC]),
    within(
        "<function=",
        &[CODER, call(&[], &[Lit("<function="), Name, Lit(">"), G(Json), Lit("</function>")])],
    ),
    within(
        "<function name=\"",
        &[call(
            &[],
            &[Lit("<function name=\""), Name, Lit("\">"), G(Tagged(&PARAM)), Lit("</function>")],
        )],
    ),
    within(">>>", &[call(&[], &[Lit(">>>"), Name, Lit("\n"), G(Json)])]),
];

/// An answer that is nothing but calls, without marks, as Llama 3 writes.
pub(super) static BARE: Form = form("", &[], &[OBJECT]);
/// `[name(key=value)]`, as Llama 4 writes.
pub(super) static BARE_PYTHON: Form = form("", &[], &[PYTHONIC]);

/// What opens a thought, and what ends it.
pub(super) static THOUGHTS: &[[&str; 2]] = &[
    ["<think>", "</think>"],
    ["[THINK]", "[/THINK]"],
    ["<seed:think>", "</seed:think>"],
    ["<mm:think>", "</mm:think>"],
    ["<think:opensource>", "</think:opensource>"],
    ["<|START_THINKING|>", "<|END_THINKING|>"],
    ["<|channel>thought", "<channel|>"],
    ["<|open|>think<|sep|>", "<|close|>think<|sep|>"],
    ["<|inner_prefix|>", "<|inner_suffix|>"],
    ["<|think|>", "<|end|>"],
    ["Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"],
    ["<thought>", "</thought>"],
    ["<thinking>", "</thinking>"],
    ["<reasoning>", "</reasoning>"],
    ["<reason>", "</reason>"],
];

/// Marks that say nothing: what is between them is text.
pub(super) static DROPPED: &[&str] = &[
    "<|START_RESPONSE|>",
    "<|END_RESPONSE|>",
    "<|START_TEXT|>",
    "<|END_TEXT|>",
    "<|open|>response<|sep|>",
    "<|close|>response<|sep|>",
    "<|close|>message<|sep|>",
    "<response>",
    "</response>",
    "</assistant>",
    "<|begin|>assistant",
    "<|content|>",
    "<|END_OF_TURN_TOKEN|>",
    "<|end_of_msg|>",
    "<|role_end|>",
    "<|message_sep|>",
    "<|tool_response>",
    "<|end|>",
    "[e~[",
    ">>>all\n",
];

/// What heads a message where models speak in channels.
pub(super) const HEAD_END: &str = "<|message|>";
pub(super) const CHANNEL: &str = "<|channel|>";
pub(super) const START: &str = "<|start|>";
/// What ends such a message.
pub(super) static ENDS: &[&str] =
    &["<|end|>", "<|return|>", "<|call|>", "<|eom|>", "<|eot|>", START, CHANNEL];
/// Control tokens that channels need to be seen.
pub(super) static CHANNEL_MARKS: &[&str] = &[
    CHANNEL,
    HEAD_END,
    START,
    "<|constrain|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|eom|>",
    "<|eot|>",
];
