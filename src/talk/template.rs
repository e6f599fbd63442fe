//! Chat templates: which one a model gets, and what it accepts. Messages become text here; tokens
//! are made in [`chat`](super::chat), and Jinja itself is in `jinja`.

mod jinja;
mod json;
mod percent;
mod python;
mod watch;

use minijinja::Value;

use super::{Message, Role, Vocab};
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
}

impl SpecialTokens {
    /// Those of `vocab`.
    pub fn of(vocab: &Vocab) -> SpecialTokens {
        SpecialTokens {
            bos: vocab.bos().map(|t| vocab.text(t)),
            eos: vocab.eos().map(|t| vocab.text(t)),
            chatml: vocab.find("<|im_start|>").is_some() && vocab.find("<|im_end|>").is_some(),
        }
    }
}

/// A template that is known to render.
#[derive(Debug)]
pub struct ChatTemplate {
    jinja: Jinja,
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

    /// A template from its Jinja source, after a trial that tells what it accepts.
    ///
    /// # Errors
    /// It is not Jinja, or fails on one simple user message, or leaves it out.
    pub fn new(source: &str, tokens: SpecialTokens) -> Result<ChatTemplate, TemplateError> {
        let mut template = ChatTemplate {
            jinja: Jinja::new(source)?,
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
        self.fill(messages.iter().map(value_of).collect(), tools, true)
    }

    /// Whether it tells the model of tools.
    pub fn takes_tools(&self) -> bool {
        let user = serde_json::json!({"role": "user", "content": "?"});
        let tools = serde_json::json!([{"type": "function", "function": {
            "name": PROBE, "description": "", "parameters": {"type": "object", "properties": {}},
        }}]);
        self.render_json(&[user], Some(&tools)).is_ok_and(|text| text.contains(PROBE))
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
        self.fill(messages.collect(), tools, add_generation_prompt)
    }

    /// The text for `messages` that have the form that the template wants.
    fn fill(
        &self,
        messages: Value,
        tools: Option<&serde_json::Value>,
        add_generation_prompt: bool,
    ) -> Result<String, TemplateError> {
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
        self.jinja.render(Value::from_pairs(context))
    }
}
