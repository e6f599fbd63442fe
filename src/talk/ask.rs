//! What is asked of a model, in no protocol's words, and the prompt that it becomes: whatever a template wants otherwise than clients
//! send it is put right here.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::marks::{Marks, Signs, any_string, map_strings};
use super::speech::grammar::{self, Opening};
use super::speech::{Dialect, Reader, reader};
use super::template::{ChatTemplate, TemplateError};
use super::thinking::Thinking;
use super::tools::Tools;
use super::{Error, Vocab, first, ids};
use crate::ggml::Token;

/// A word that no conversation has, by which the end of a message is found.
const END: &str = "\u{f8ff}qzxv\u{f8ff}";

/// The most tokens of a word that is begun again.
const MAX_WORD: usize = 8;

/// A conversation to be continued.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    /// What was said: objects with `role` (system, user, assistant, tool) and `content` (a text); an assistant's may have
    /// `reasoning_content` and `tool_calls`, whose arguments are objects where they are JSON; a tool's has `tool_call_id` or `name`.
    pub messages: Vec<Value>,
    /// What the model may call.
    pub tools: Option<Arc<Tools>>,
    /// Whether and how much it is to think.
    pub thinking: Thinking,
    /// More variables for the template.
    pub variables: Map<String, Value>,
    /// Whether the last message is the beginning of the answer.
    pub continues: bool,
    /// What could not be understood of it.
    pub warnings: Vec<String>,
}

impl Ask {
    /// The beginning of the answer, where there is one.
    fn begun(&self) -> String {
        let last = self.messages.last().filter(|_| self.continues);
        let text = |key: &str| last.and_then(|m| m[key].as_str()).filter(|text| !text.is_empty());
        text("content").or(text("reasoning_content")).unwrap_or_default().to_owned()
    }
}

/// What an answer must fit.
#[derive(Debug)]
pub struct Held {
    /// Rules in libllama's form (GBNF).
    pub rules: String,
    /// The rule that the answer must fit.
    pub root: String,
    /// What tools ask of their parameters that the rules do not hold an answer to; none if it is no call.
    pub loose: Option<Vec<String>>,
}

/// What a conversation became.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// With signs, if some are needed.
    text: String,
    signs: Option<Signs>,
    /// How much of `text` an answer's reader must know. (bytes)
    known: usize,
    dialect: Arc<Dialect>,
    tools: Option<Arc<Tools>>,
    /// Whether it is not to think.
    quiet: bool,
    /// Whether it is the beginning of an answer, too, and which.
    continues: bool,
    begun: String,
    /// What could not be done as it was asked.
    pub warnings: Vec<String>,
}

impl Prompt {
    /// Its text.
    pub fn text(&self) -> String {
        self.signs.map_or_else(|| self.text.clone(), |signs| signs.removed(&self.text))
    }

    /// Its tokens; the first one, where the vocabulary wants one, is there once. Where an answer was begun, the last word is left out,
    /// and its bytes are what the answer must begin with: a model would have written it in other tokens, had it gone on.
    ///
    /// # Errors
    /// As [`Vocab::tokenize`].
    pub fn tokens(&self, marks: &Marks, vocab: &Vocab) -> Result<(Vec<Token>, Vec<u8>), Error> {
        let mut tokens = match self.signs {
            None => first::prompt_tokens(&self.text, vocab)?,
            Some(signs) => first::with_first(marks.tokens(&self.text, signs, vocab)?, vocab),
        };
        let begins = if self.continues { self.last_word(&mut tokens, vocab) } else { Vec::new() };
        Ok((tokens, begins))
    }

    /// Takes the last word's tokens, as far as they are the begun answer's.
    fn last_word(&self, tokens: &mut Vec<Token>, vocab: &Vocab) -> Vec<u8> {
        let mut bytes: Vec<u8> = Vec::new();
        for n in 1..=MAX_WORD.min(tokens.len().saturating_sub(1)) {
            let piece = vocab.piece(tokens[tokens.len() - n]);
            bytes.splice(0..0, piece.iter().copied());
            let is_word = piece.iter().all(|b| !b.is_ascii_control()) && !piece.is_empty();
            if !is_word || !self.begun.as_bytes().ends_with(&bytes) {
                return Vec::new();
            }
            if piece[0] == b' ' || bytes.len() == self.begun.len() {
                tokens.truncate(tokens.len() - n);
                return bytes;
            }
        }
        Vec::new()
    }

    /// Who reads the answer. `live`: as it comes.
    pub fn reader(&self, live: bool) -> Reader {
        reader(&self.dialect, &self.text[..self.known], self.tools.as_ref(), live)
    }

    /// The grammar of an answer that must call a tool, or fit a `format` (its rules, and their root).
    ///
    /// # Errors
    /// A tool whose parameters cannot be held.
    pub fn grammar(&self, format: Option<(String, String)>) -> Result<Option<Held>, String> {
        let opening = Opening { thought: self.thought_end(), quiet: self.quiet };
        if let Some(tools) = self.tools.as_ref().filter(|tools| tools.required) {
            let (rules, loose) = grammar::call(&self.dialect, &opening, tools)?;
            let root = grammar::ROOT.to_owned();
            return Ok(Some(Held { rules, root, loose: Some(loose) }));
        }
        let Some((rules, root)) = format else { return Ok(None) };
        let after = grammar::after_thought(&self.dialect, &opening, &rules, &root);
        let (rules, root) = match after.filter(|_| !self.continues) {
            Some(all) => (all, grammar::ROOT.to_owned()),
            None => (rules, root),
        };
        Ok(Some(Held { rules, root, loose: None }))
    }

    /// How the model speaks.
    pub fn dialect(&self) -> &Arc<Dialect> {
        &self.dialect
    }

    /// What begins a thought, what ends it, and what to write to end it; nothing for a model that thinks in no marks.
    pub fn thought_marks(&self) -> Option<(String, String, String)> {
        let (open, close) = self.dialect.thought_marks()?;
        let then = match self.dialect.channels() {
            true => format!("{close}<|start|>assistant<|channel|>final<|message|>"),
            false => format!("\n{close}\n\n"),
        };
        Some((open.to_owned(), close.to_owned(), then))
    }

    /// What ends the thought that the prompt opens, if it does.
    pub fn thought_end(&self) -> Option<&'static str> {
        self.dialect.opened_by(&self.text[..self.known])
    }
}

impl ChatTemplate {
    /// The prompt for `ask`.
    ///
    /// # Errors
    /// The template refuses the conversation, fails, or goes past its limits.
    pub fn prompt(&self, ask: &Ask, marks: &Marks) -> Result<Prompt, TemplateError> {
        let template = self.for_tools(ask.tools.is_some());
        let mut ask = ask.clone();
        if ask.thinking == Thinking::default() {
            ask.thinking = self.thinking().clone();
        }
        if ask.messages.iter().any(|message| message.get("tool_calls").is_some()) {
            ids::settle(&mut ask.messages, template.fit().ids);
        }
        let mut dialect = template.dialect();
        if let Some(tools) = ask.tools.clone()
            && !template.takes_tools()
        {
            offer(&mut ask.messages, &tools);
            dialect = dialect.generic();
        }
        let plain = template.rendered(&ask)?;
        let (text, signs) = match template.quoted(&ask, marks, &dialect) {
            None => (plain, None),
            Some((quoted, signs)) => match template.rendered(&quoted) {
                Ok(text) if signs.removed(&text) == plain => (text, Some(signs)),
                _ => (plain, None),
            },
        };
        let mut prompt = Prompt {
            known: text.len(),
            text,
            signs,
            dialect,
            tools: ask.tools.clone(),
            quiet: ask.thinking.wanted == Some(false),
            continues: ask.continues,
            begun: ask.begun(),
            warnings: Vec::new(),
        };
        if ask.continues
            && let Some(thought) = ask.messages.last().and_then(|m| m["reasoning_content"].as_str())
            && prompt.text.ends_with(thought)
        {
            prompt.known -= thought.len();
        }
        template.switch(&ask, &mut prompt);
        Ok(prompt)
    }

    /// Does what a template cannot do of what was asked about thinking, or says that it is not done.
    fn switch(&self, ask: &Ask, prompt: &mut Prompt) {
        let Thinking { wanted, effort, .. } = &ask.thinking;
        if *wanted == Some(false) {
            if let Some(end) = prompt.thought_end().filter(|_| !ask.continues) {
                prompt.text = format!("{}\n{end}\n\n", prompt.text.trim_end());
                prompt.known = prompt.text.len();
            } else if prompt.dialect.thinks() && !self.fit().switches {
                prompt.warnings.push("this model's chat template cannot turn thinking off".into());
            }
        } else if *wanted == Some(true) && !prompt.dialect.thinks() {
            prompt.warnings.push("this model's chat template knows no thinking".into());
        } else if effort.is_some() && !self.fit().efforts {
            let why = "this model's chat template knows no reasoning effort: it thinks as it does";
            prompt.warnings.push(why.into());
        }
    }

    /// `ask` with signs in what nobody may take for marks; None where there is nothing of the kind.
    fn quoted(&self, ask: &Ask, marks: &Marks, dialect: &Dialect) -> Option<(Ask, Signs)> {
        let thoughts = |mark: &str| dialect.is_thought(mark);
        let all = |_: &str| true;
        let not_thoughts = |mark: &str| !thoughts(mark);
        let counts = |message: &Value| -> &dyn Fn(&str) -> bool {
            if message["role"] == "assistant" { &not_thoughts } else { &all }
        };
        let has = |value: &Value, counts: &dyn Fn(&str) -> bool| {
            any_string(value, &|text| marks.are_in(text, counts))
        };
        let list = ask.tools.as_ref().map(|tools| Value::from(tools.list.clone()));
        let found = ask.messages.iter().any(|message| has(message, counts(message)))
            || list.as_ref().is_some_and(|list| has(list, &all));
        if !found {
            return None;
        }
        let texts: Vec<&Value> = ask.messages.iter().chain(&list).collect();
        let signs = Signs::free_of(&texts)?;
        let mut quoted = ask.clone();
        for message in &mut quoted.messages {
            let assistant = message["role"] == "assistant";
            map_strings(message, &|text| {
                let counts: &dyn Fn(&str) -> bool = if assistant { &not_thoughts } else { &all };
                marks.signed(text, signs, counts)
            });
        }
        if let Some(mut list) = list {
            map_strings(&mut list, &|text| marks.signed(text, signs, &all));
            let list = list.as_array().cloned().unwrap_or_default();
            quoted.tools =
                ask.tools.as_ref().map(|tools| Arc::new(Tools { list, ..(**tools).clone() }));
        }
        Some((quoted, signs))
    }

    /// What the template makes of `ask`.
    fn rendered(&self, ask: &Ask) -> Result<String, TemplateError> {
        match self.rendered_as_is(ask) {
            Err(TemplateError::Refused(_) | TemplateError::Failed(_))
                if ask.messages.iter().skip(1).any(|message| message["role"] == "system") =>
            {
                let mut ask = ask.clone();
                ask.messages = without_late_systems(ask.messages);
                self.rendered_as_is(&ask)
            }
            other => other,
        }
    }

    fn rendered_as_is(&self, ask: &Ask) -> Result<String, TemplateError> {
        let mut messages: Vec<Value> = ask.messages.iter().map(|m| self.fitted(m)).collect();
        let list = ask.tools.as_ref().filter(|_| self.takes_tools());
        let list = list.map(|tools| Value::from(tools.list.clone()));
        let mut variables = ask.variables.clone();
        let Thinking { wanted, effort, budget } = &ask.thinking;
        if let Some(wanted) = wanted {
            for name in ["enable_thinking", "thinking"] {
                variables.entry(name).or_insert((*wanted).into());
            }
        }
        if let Some(effort) = effort {
            variables.entry("reasoning_effort").or_insert(effort.as_str().into());
        }
        if let Some(budget) = budget {
            variables.entry("thinking_budget").or_insert((*budget).into());
        }
        let last = messages.last_mut().filter(|m| ask.continues && m["role"] == "assistant");
        let Some(last) = last else {
            return self.render_with(&messages, list.as_ref(), true, &variables);
        };
        let is_empty = last["content"].as_str().is_none_or(str::is_empty);
        let key = if is_empty && last.get("reasoning_content").is_some() {
            "reasoning_content"
        } else {
            "content"
        };
        let begun = last[key].as_str().unwrap_or_default().to_owned();
        last[key] = format!("{begun}{END}").into();
        let text = self.render_with(&messages, list.as_ref(), false, &variables)?;
        match text.rfind(END) {
            Some(at) => Ok(text[..at].to_owned()),
            // It does not show what was begun: that goes after its opening.
            None => {
                messages.pop();
                let opening = self.render_with(&messages, list.as_ref(), true, &variables)?;
                Ok(opening + &begun)
            }
        }
    }

    /// A message as this template wants it.
    fn fitted(&self, message: &Value) -> Value {
        let mut message = message.clone();
        if message["role"] != "assistant" {
            return message;
        }
        let fit = self.fit();
        let calls = message.get_mut("tool_calls").and_then(Value::as_array_mut);
        let has_calls = calls.as_ref().is_some_and(|calls| !calls.is_empty());
        for call in calls.into_iter().flatten() {
            let given = &mut call["function"]["arguments"];
            if fit.text_arguments && !given.is_string() {
                *given = given.to_string().into();
            }
        }
        let is_empty = message["content"].as_str().is_none_or(str::is_empty);
        if has_calls && is_empty && fit.null_content {
            message["content"] = Value::Null;
        }
        if let Some(thought) = message.get("reasoning_content").cloned() {
            for key in fit.thought_keys.iter().filter(|key| **key != "reasoning_content") {
                message[*key] = thought.clone();
            }
        }
        message
    }
}

/// System messages in the middle of a conversation become a part of what the user says next, or said before.
fn without_late_systems(messages: Vec<Value>) -> Vec<Value> {
    let mut out: Vec<Value> = Vec::new();
    for (i, mut message) in messages.into_iter().enumerate() {
        if i > 0 && message["role"] == "system" {
            message["role"] = "user".into();
        }
        let joins = message["role"] == "user"
            && out.last().is_some_and(|last| last["role"] == "user")
            && message["content"].is_string();
        match out.last_mut().filter(|_| joins) {
            Some(last) => {
                let text = |m: &Value| m["content"].as_str().unwrap_or_default().to_owned();
                last["content"] = format!("{}\n\n{}", text(last), text(&message)).into();
            }
            None => out.push(message),
        }
    }
    out
}

/// Tells a model of tools whose template does not, and what was called before.
fn offer(messages: &mut Vec<Value>, tools: &Tools) {
    let functions: Vec<&Value> = tools.list.iter().map(|tool| &tool["function"]).collect();
    let functions = serde_json::to_string(&functions).unwrap_or_default();
    let must =
        if tools.required { "You must call one of them now." } else { "Call one where it helps." };
    let text = format!(
        "You have these tools, as JSON: {functions}\n{must} To call a tool, answer with nothing but JSON of this form: \
         {{\"tool_call\": {{\"name\": \"the tool's name\", \"arguments\": {{\"a parameter\": \"its value\"}}}}}}"
    );
    for message in messages.iter_mut() {
        if message["role"] == "tool" {
            let said = message["content"].as_str().unwrap_or_default();
            *message = json!({"role": "user", "content": format!("The tool answered: {said}")});
        } else if let Some(calls) = message.get("tool_calls").and_then(Value::as_array).cloned() {
            let said = message["content"].as_str().unwrap_or_default();
            let call = |call: &Value| json!({"tool_call": call["function"]}).to_string();
            let calls: Vec<String> = calls.iter().map(call).collect();
            let content = [said, &calls.join("\n")].join(if said.is_empty() { "" } else { "\n" });
            *message = json!({"role": "assistant", "content": content});
        }
    }
    match messages.first_mut().filter(|message| message["role"] == "system") {
        Some(first) => {
            let said = first["content"].as_str().unwrap_or_default();
            first["content"] = format!("{said}\n\n{text}").into();
        }
        None => messages.insert(0, json!({"role": "system", "content": text})),
    }
}
