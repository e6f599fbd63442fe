//! What a model's marks are: those of all forms that its template or its vocabulary knows. It reads no answer.

use std::sync::Arc;

use super::forms::{
    CHANNEL, CHANNEL_MARKS, Call, DROPPED, ENDS, FORMS, Form, Given, HEAD_END, START, Step,
    THOUGHTS,
};

/// What a mark begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// One of [`THOUGHTS`].
    Thought(usize),
    /// One of [`FORMS`].
    Form(usize),
    /// Nothing.
    Dropped,
    /// The end of a thought, which says nothing where none was begun.
    Close,
    /// The head of a message in a channel.
    Header,
}

/// How a model speaks.
#[derive(Debug, Default)]
pub struct Dialect {
    pub(super) marks: Vec<(&'static str, Mark)>,
    pub(super) channels: bool,
    /// Whether an answer that is a call has no marks.
    pub(super) bare: bool,
    pub(super) bare_python: bool,
    /// Whether the form of calls is ours.
    pub(super) generic: bool,
    /// Whether a call's number comes after what the tool is given.
    pub(super) late_ids: bool,
    /// The way in which the template teaches to call.
    pub(super) taught: Option<(&'static Form, &'static Call)>,
    /// Whether the bare form says `parameters`, and not `arguments`.
    pub(super) parameters: bool,
}

/// The marks of thoughts and channels that may be tokens of a vocabulary.
pub fn known_marks() -> impl Iterator<Item = &'static str> {
    let thoughts = THOUGHTS.iter().flatten().filter(|mark| !mark.contains("end|>"));
    thoughts.chain(&[CHANNEL, HEAD_END]).copied()
}

impl Dialect {
    /// The same of a model whose template shows it no tools: it is told to call them in a form of ours. Its thoughts, and calls in a form of its
    /// own that it has learned all the same, are understood.
    pub fn generic(&self) -> Arc<Dialect> {
        let (marks, channels) = (self.marks.clone(), self.channels);
        Arc::new(Dialect { marks, channels, bare: true, generic: true, ..Dialect::default() })
    }

    /// Of a model with this template, if `is_token` says which marks are tokens of its own.
    pub fn of(template: &str, takes_tools: bool, is_token: &dyn Fn(&str) -> bool) -> Dialect {
        let shown = |mark: &str| template.contains(mark.trim_end());
        let knows = |mark: &str| shown(mark) || is_token(mark);
        let mut marks = Vec::new();
        let channels = knows(HEAD_END) && (knows(CHANNEL) || shown("to=self"));
        if channels {
            marks.extend([CHANNEL, START].map(|mark| (mark, Mark::Header)));
        }
        for (i, [open, close]) in THOUGHTS.iter().enumerate() {
            // One mark may be written of parts.
            if knows(open) || (shown(close) && *close != "<|end|>") || composed(open, &shown) {
                marks.push((*open, Mark::Thought(i)));
                marks.extend((*close != "<|end|>").then_some((*close, Mark::Close)));
            }
        }
        let mut taught = None;
        for (i, form) in FORMS.iter().enumerate() {
            if !written(form, &shown) {
                continue;
            }
            marks.push((form.open, Mark::Form(i)));
            let way = |call: &&Call| call.taught_by.iter().all(|word| shown(word));
            if taught.is_none() {
                taught = form.calls.iter().find(way).map(|call| (form, call));
            }
        }
        let dropped = DROPPED.iter().filter(|mark| knows(mark) || composed(mark, &shown));
        marks.extend(dropped.map(|mark| (*mark, Mark::Dropped)));
        if channels {
            let ends = ENDS.iter().filter(|end| **end != CHANNEL && **end != START);
            marks.extend(ends.map(|mark| (*mark, Mark::Dropped)));
        }
        if channels && taught.is_some_and(|(form, _)| form.open == "<|tool_calls|>") {
            taught = None;
        }
        let unmarked =
            takes_tools && !channels && taught.is_none_or(|(f, _)| f.open == "<|python_tag|>");
        let bare_python = unmarked && template.contains("func_name1(");
        Dialect {
            late_ids: taught.is_some_and(|(form, call)| {
                form.open == "[TOOL_CALLS]" && matches!(call.steps, [Step::Given(Given::Whole)])
            }),
            bare: unmarked && !bare_python,
            bare_python,
            generic: false,
            parameters: unmarked || template.contains("\"parameters\": {"),
            channels,
            marks,
            taught,
        }
    }

    /// The marks, some of which may be control tokens, whose texts must be seen.
    pub fn marks(&self) -> impl Iterator<Item = &'static str> {
        let channels = CHANNEL_MARKS.iter().filter(|_| self.channels);
        let closes = self.marks.iter().filter_map(|(_, mark)| match mark {
            Mark::Thought(i) => Some(THOUGHTS[*i][1]),
            _ => None,
        });
        let forms = self.marks.iter().filter_map(|(_, mark)| match mark {
            Mark::Form(i) => Some(&FORMS[*i]),
            _ => None,
        });
        let inner = forms.flat_map(|form| {
            let steps = form.calls.iter().flat_map(|call| call.steps.iter());
            form.close.iter().copied().chain(steps.flat_map(literals))
        });
        self.marks.iter().map(|(mark, _)| *mark).chain(closes).chain(inner).chain(channels.copied())
    }

    /// Whether it thinks aloud.
    pub fn thinks(&self) -> bool {
        self.channels || self.marks.iter().any(|(_, mark)| matches!(mark, Mark::Thought(_)))
    }

    /// What ends the thought that a prompt has opened at its end.
    pub fn opened_by(&self, prompt: &str) -> Option<&'static str> {
        self.opened(prompt).and_then(|closes| closes.first().copied())
    }

    /// What begins a thought, and what ends it.
    pub fn thought_marks(&self) -> Option<(&'static str, &'static str)> {
        if self.channels() {
            return Some(("<|channel|>analysis<|message|>", "<|end|>"));
        }
        self.first_thought().map(|i| (THOUGHTS[i][0], THOUGHTS[i][1]))
    }

    /// Whether it speaks in channels, as gpt-oss does.
    pub fn channels(&self) -> bool {
        self.channels && self.taught.is_none()
    }

    /// Whether the names of its calls are numbers of the conversation, too.
    pub fn counts_calls(&self) -> bool {
        self.taught.is_some_and(|(_, call)| call.steps.contains(&Step::NameAndId))
    }

    /// The thought that it knows.
    pub(super) fn first_thought(&self) -> Option<usize> {
        self.marks.iter().find_map(|(_, mark)| match mark {
            Mark::Thought(i) => Some(*i),
            _ => None,
        })
    }

    /// Whether this opens or ends a thought.
    pub fn is_thought(&self, mark: &str) -> bool {
        let thoughts = self.marks.iter().filter_map(|(_, kind)| match kind {
            Mark::Thought(i) => Some(&THOUGHTS[*i]),
            _ => None,
        });
        thoughts.flatten().any(|known| *known == mark)
    }

    pub(super) fn knows(&self, mark: &str) -> bool {
        self.marks.iter().any(|(known, _)| *known == mark)
    }

    /// What ends the thought that a prompt has opened at its end.
    pub(super) fn opened(&self, prompt: &str) -> Option<&'static [&'static str]> {
        let end = prompt.trim_end();
        self.marks.iter().find_map(|(open, mark)| match mark {
            Mark::Thought(i) if end.ends_with(open) => Some(&THOUGHTS[*i][1..]),
            _ => None,
        })
    }

    /// The first mark of a call in `text` from `from` on, and whose it is.
    pub(super) fn first_form(&self, text: &str, from: usize) -> Option<(usize, usize)> {
        let rest = text.get(from..)?;
        let found = self.marks.iter().filter_map(|(open, mark)| match mark {
            Mark::Form(i) => Some((from + rest.find(open)?, usize::MAX - open.len(), *i)),
            _ => None,
        });
        found.min().map(|(at, _, i)| (at, i))
    }
}

/// Whether a template writes a mark of parts.
fn composed(mark: &str, shown: &dyn Fn(&str) -> bool) -> bool {
    if mark.ends_with(":opensource>") {
        return shown("opensource") && shown("arg_key");
    }
    mark.ends_with("<|sep|>") && shown("<|open|>") && shown("<|close|>") && shown("<|sep|>")
}

/// Whether a template writes a form. Some write their marks of parts.
fn written(form: &Form, shown: &dyn Fn(&str) -> bool) -> bool {
    match form.open {
        "<\u{ff5c}DSML\u{ff5c}function_calls>" => shown("DSML") && shown("function_calls"),
        "<\u{ff5c}DSML\u{ff5c}tool_calls>" => shown("DSML") && shown("tool_calls"),
        "]<]minimax[>[<tool_call>" => shown("]<]minimax[>["),
        "<|open|>tools<|sep|>" | "<tool_calls:opensource>" => composed(form.open, shown),
        "function call<|role_sep|>" => shown("function call") && shown("<|role_sep|>"),
        ">>>" => shown(">>>all"),
        "functools" => shown("functools["),
        "Action:" => shown("Action:") && shown("tool_name"),
        "<function=" => shown("<function=") && !shown("<parameter="),
        "<tool_calls>" => shown("<tool_calls>") || shown("tool_calls>["),
        open => shown(open),
    }
}

fn literals(step: &'static Step) -> Vec<&'static str> {
    match step {
        Step::Lit(mark) | Step::Maybe(mark) | Step::Past(mark) => vec![mark],
        Step::Given(Given::Tagged(tags)) => vec![tags.open, tags.key_end, tags.value, tags.close],
        Step::Given(Given::Braces(quote)) => vec![quote],
        _ => Vec::new(),
    }
}
