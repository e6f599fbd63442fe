//! Chat templates: which one a model gets, and what it accepts. Messages become text here; tokens
//! are made in [`chat`](super::chat), and Jinja itself is in `jinja`.

mod filters;
mod fit;
mod jinja;
mod json;
mod methods;
mod percent;
mod python;
mod watch;

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use minijinja::Value;
use serde_json::Map;

use super::marks::Marks;
use super::speech::{self, Dialect};
use super::thinking::Thinking;
use super::{Message, Role, Vocab};
use crate::ggml::Token;
use fit::Fit;
pub use jinja::TemplateError;
use jinja::{Jinja, value_of};

/// Where a template comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The model file's own.
    File,
    /// The file has none (or a broken one), but its vocabulary has ChatML's two tokens.
    ChatMl,
    /// Neither: `User: … Assistant:`.
    Plain,
}

/// What a template may know of a vocabulary.
#[derive(Clone, Debug, Default)]
pub struct SpecialTokens {
    /// Text of the token that begins a sequence.
    pub bos: Option<String>,
    /// Text of the token that ends one.
    pub eos: Option<String>,
    /// Whether `<|im_start|>` and `<|im_end|>` are tokens.
    pub chatml: bool,
    /// The marks of thoughts and calls that are tokens.
    pub marks: Vec<&'static str>,
}

impl SpecialTokens {
    /// Those of `vocab`.
    pub fn of(vocab: &Vocab) -> SpecialTokens {
        SpecialTokens {
            bos: vocab.bos().map(|t| vocab.text(t)),
            eos: vocab.eos().map(|t| vocab.text(t)),
            chatml: vocab.find("<|im_start|>").is_some() && vocab.find("<|im_end|>").is_some(),
            marks: speech::known_marks().filter(|mark| vocab.find(mark).is_some()).collect(),
        }
    }
}

/// A template that is known to render.
#[derive(Debug)]
pub struct ChatTemplate {
    jinja: Jinja,
    source: String,
    /// What the file has for conversations with tools.
    tool_use: Option<Box<ChatTemplate>>,
    fit: OnceLock<Fit>,
    takes_tools: OnceLock<bool>,
    dialect: OnceLock<Arc<Dialect>>,
    /// How the model is to think where nobody says.
    thinking: Thinking,
    tokens: SpecialTokens,
    origin: Origin,
    warning: Option<String>,
    /// Whether the template takes no system message: its text then goes before the first user
    /// message.
    folds_system: bool,
    /// Whether content must be a list of parts, as templates of models that also see have it.
    wants_parts: bool,
}

/// ChatML, for files without a template.
const CHATML: &str = "{% for m in messages %}\
    <|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// For models that know no roles at all.
const PLAIN: &str = "{% for m in messages %}\
    {% if m.role == 'system' %}{{ m.content }}\n\n\
    {% else %}{{ m.role|capitalize }}: {{ m.content }}\n{% endif %}{% endfor %}\
    {% if add_generation_prompt %}Assistant:{% endif %}";

/// A word that a template cannot know, so that what it does with a text shows.
const PROBE: &str = "qzxv";

impl ChatTemplate {
    /// The template for a file with this `source`: its own if it works, else ChatML or the plain form. What cannot be used is replaced, with a
    /// [`warning`](Self::warning).
    ///
    /// # Errors
    /// Only [`TemplateError::Runaway`]: then there is nothing left to replace it in.
    pub fn choose(
        source: Option<&str>,
        tokens: SpecialTokens,
    ) -> Result<ChatTemplate, TemplateError> {
        let why = match source.filter(|s| !s.trim().is_empty()) {
            None => "the file has no chat template".to_owned(),
            Some(source) => match ChatTemplate::new(source, tokens.clone()) {
                Ok(template) => return Ok(template),
                Err(error @ TemplateError::Runaway(_)) => return Err(error),
                Err(error) => format!("the file's chat template cannot be used ({error})"),
            },
        };
        let (origin, source, instead) = if tokens.chatml {
            (Origin::ChatMl, CHATML, "ChatML, which its vocabulary knows")
        } else {
            (Origin::Plain, PLAIN, "plain 'User:' and 'Assistant:' lines")
        };
        let mut template = ChatTemplate::new(source, tokens)?;
        template.origin = origin;
        template.warning = Some(format!("{why}; using {instead}"));
        Ok(template)
    }

    /// As [`choose`](Self::choose), for a file that has another template, `tool_use`, for conversations with tools.
    ///
    /// # Errors
    /// As [`choose`](Self::choose).
    pub fn choose_two(
        source: Option<&str>,
        tool_use: Option<&str>,
        tokens: SpecialTokens,
    ) -> Result<ChatTemplate, TemplateError> {
        let source = source.filter(|s| !s.trim().is_empty()).or(tool_use);
        let mut template = ChatTemplate::choose(source, tokens.clone())?;
        if let Some(tool_use) = tool_use.filter(|t| !t.trim().is_empty()) {
            match ChatTemplate::new(tool_use, tokens) {
                Ok(other) => template.tool_use = Some(Box::new(other)),
                Err(error @ TemplateError::Runaway(_)) => return Err(error),
                Err(error) => {
                    let why =
                        format!("the file's chat template for tools cannot be used ({error})");
                    let others = template.warning.take().map(|other| format!("{other}; "));
                    template.warning = Some(others.unwrap_or_default() + &why);
                }
            }
        }
        Ok(template)
    }

    /// A template from its Jinja source, after a trial that tells what it accepts.
    ///
    /// # Errors
    /// It is not Jinja, or fails on one simple user message, or leaves it out.
    pub fn new(source: &str, tokens: SpecialTokens) -> Result<ChatTemplate, TemplateError> {
        let mut template = ChatTemplate {
            jinja: Jinja::new(source)?,
            source: source.to_owned(),
            tool_use: None,
            fit: OnceLock::new(),
            takes_tools: OnceLock::new(),
            dialect: OnceLock::new(),
            thinking: Thinking::default(),
            tokens,
            origin: Origin::File,
            warning: None,
            folds_system: false,
            wants_parts: false,
        };
        let user = Message::new(Role::User, PROBE);
        let plain = template.raw(std::slice::from_ref(&user), None, true);
        if let Err(TemplateError::Runaway(what)) = plain {
            return Err(TemplateError::Runaway(what));
        }
        if !plain.as_ref().is_ok_and(|text| text.contains(PROBE)) {
            template.wants_parts = true;
            let parts = template.raw(std::slice::from_ref(&user), None, true);
            if !parts.is_ok_and(|text| text.contains(PROBE)) {
                let dropped = TemplateError::Failed("it leaves out what the user says".to_owned());
                return Err(plain.err().unwrap_or(dropped));
            }
        }
        let system = [Message::new(Role::System, PROBE), Message::new(Role::User, "?")];
        let kept = template.raw(&system, None, true).is_ok_and(|text| text.contains(PROBE));
        template.folds_system = !kept;
        Ok(template)
    }

    /// The prompt for `messages`, of which only the first may be a system message; with the opening
    /// of the answer if `add_generation_prompt`.
    ///
    /// # Errors
    /// The template refuses the conversation, fails, or goes past its limits.
    pub fn render(
        &self,
        messages: &[Message],
        tools: Option<&serde_json::Value>,
        add_generation_prompt: bool,
    ) -> Result<String, TemplateError> {
        match messages {
            [system, user, rest @ ..]
                if self.folds_system && system.role == Role::System && user.role == Role::User =>
            {
                let content = format!("{}\n\n{}", system.content, user.content);
                let mut folded = vec![Message::new(Role::User, content)];
                folded.extend_from_slice(rest);
                self.raw(&folded, tools, add_generation_prompt)
            }
            _ => self.raw(messages, tools, add_generation_prompt),
        }
    }

    /// As [`render`](Self::render), for messages as the protocols have them: objects with `role`, `content` (a text) and whatever
    /// else the template may know, such as `tool_calls`.
    ///
    /// # Errors
    /// As [`render`](Self::render).
    pub fn render_json(
        &self,
        messages: &[serde_json::Value],
        tools: Option<&serde_json::Value>,
    ) -> Result<String, TemplateError> {
        self.render_with(messages, tools, true, &Map::new())
    }

    /// As [`render_json`](Self::render_json), with more variables.
    pub(super) fn render_with(
        &self,
        messages: &[serde_json::Value],
        tools: Option<&serde_json::Value>,
        add_generation_prompt: bool,
        variables: &Map<String, serde_json::Value>,
    ) -> Result<String, TemplateError> {
        let content = |m: &serde_json::Value| m["content"].as_str().unwrap_or_default().to_owned();
        let mut messages = messages.to_vec();
        if let [system, user, ..] = messages.as_slice()
            && self.folds_system
            && system["role"] == "system"
            && user["role"] == "user"
        {
            let folded = format!("{}\n\n{}", content(system), content(user));
            messages.remove(0);
            messages[0]["content"] = folded.into();
        }
        if self.wants_parts {
            for message in &mut messages {
                message["content"] =
                    serde_json::json!([{"type": "text", "text": content(message)}]);
            }
        }
        self.fill(messages.iter().map(value_of).collect(), tools, add_generation_prompt, variables)
    }

    /// Whether it tells the model of tools.
    pub fn takes_tools(&self) -> bool {
        self.tool_use.as_ref().is_some_and(|other| other.takes_tools())
            || *self.takes_tools.get_or_init(|| self.shows_tools())
    }

    fn shows_tools(&self) -> bool {
        let user = serde_json::json!({"role": "user", "content": "?"});
        let tools = serde_json::json!([{"type": "function", "function": {
            "name": PROBE, "description": "", "parameters": {"type": "object", "properties": {}},
        }}]);
        self.render_json(&[user], Some(&tools)).is_ok_and(|text| text.contains(PROBE))
    }

    /// How the model is to think from now on, where nobody says.
    pub fn think(&mut self, thinking: Thinking) {
        self.thinking = thinking;
    }

    /// How it is to think where nobody says.
    pub fn thinking(&self) -> &Thinking {
        &self.thinking
    }

    /// The one for a conversation with tools, or without.
    pub(super) fn for_tools(&self, tools: bool) -> &ChatTemplate {
        self.tool_use.as_deref().filter(|_| tools).unwrap_or(self)
    }

    /// How the model speaks.
    pub fn dialect(&self) -> Arc<Dialect> {
        let known = |mark: &str| self.tokens.marks.contains(&mark);
        let of = || Arc::new(Dialect::of(&self.source, self.takes_tools(), &known));
        Arc::clone(self.dialect.get_or_init(of))
    }

    /// How it speaks of tools.
    pub fn tool_dialect(&self) -> Arc<Dialect> {
        let other = self.for_tools(true);
        if other.takes_tools() { other.dialect() } else { other.dialect().generic() }
    }

    /// The tokens that are marks of thoughts and calls.
    pub fn shown(&self, vocab: &Vocab) -> HashSet<Token> {
        let (chats, tools) = (self.dialect(), self.tool_dialect());
        chats.marks().chain(tools.marks()).filter_map(|mark| vocab.find(mark)).collect()
    }

    /// The tokens that nobody may quote: those that control, and of the others those that the template or the model's speech knows.
    pub fn quotable(&self, vocab: &Vocab) -> Marks {
        let (chats, tools) = (self.dialect(), self.tool_dialect());
        let marks: HashSet<&str> = chats.marks().chain(tools.marks()).collect();
        let sources = [self.source(), self.for_tools(true).source()];
        let means = |text: &str| marks.contains(text) || sources.iter().any(|s| s.contains(text));
        Marks::of(vocab, &|text| text.starts_with(['<', '[']) && means(text))
    }

    /// What the template wants otherwise than others.
    pub(super) fn fit(&self) -> &Fit {
        self.fit.get_or_init(|| Fit::of(self))
    }

    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// Where it comes from.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// What the user should know of the choice.
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// Text that ends an answer although the model did not end it: without tokens for roles, it
    /// goes on as the user.
    pub fn stop(&self) -> Option<&'static str> {
        (self.origin == Origin::Plain).then_some("\nUser:")
    }

    fn raw(
        &self,
        messages: &[Message],
        tools: Option<&serde_json::Value>,
        add_generation_prompt: bool,
    ) -> Result<String, TemplateError> {
        let messages = messages.iter().map(|m| {
            let content = if self.wants_parts {
                value_of(&serde_json::json!([{ "type": "text", "text": m.content }]))
            } else {
                Value::from(m.content.as_str())
            };
            Value::from_pairs([("role", Value::from(m.role.as_str())), ("content", content)])
        });
        self.fill(messages.collect(), tools, add_generation_prompt, &Map::new())
    }

    /// The text for `messages` that have the form that the template wants.
    fn fill(
        &self,
        messages: Value,
        tools: Option<&serde_json::Value>,
        add_generation_prompt: bool,
        variables: &Map<String, serde_json::Value>,
    ) -> Result<String, TemplateError> {
        let known = ["messages", "tools", "add_generation_prompt"];
        let more = variables.iter().filter(|(name, _)| !known.contains(&name.as_str()));
        let mut context = vec![
            ("messages", messages),
            ("tools", tools.map_or(Value::from(()), value_of)),
            ("documents", Value::from(())),
            ("add_generation_prompt", Value::from(add_generation_prompt)),
        ];
        // A token that the vocabulary lacks is undefined in the template, not empty.
        let token = |name, text: &Option<String>| Some((name, Value::from(text.as_deref()?)));
        context.extend(token("bos_token", &self.tokens.bos));
        context.extend(token("eos_token", &self.tokens.eos));
        context.extend(more.map(|(name, value)| (name.as_str(), value_of(value))));
        self.jinja.render(Value::from_pairs(context))
    }
}
