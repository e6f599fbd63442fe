//! What a model is served with where a request says nothing: the names that mean it, and what its keeper or the user would run it with.

use serde_json::{Value, json};

use crate::engine::SamplerSettings;
use crate::talk::thinking::Thinking;

/// Names and settings of the model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Preset {
    /// What clients are told that it is called; the name of its file if none.
    pub name: Option<String>,
    /// What else means it.
    pub aliases: Vec<String>,
    /// Instructions for conversations that bring none.
    pub system: Option<String>,
    /// What every conversation begins with, as (role, text).
    pub messages: Vec<(String, String)>,
    /// Texts that end every answer.
    pub stops: Vec<String>,
    /// The most tokens of an answer.
    pub max_tokens: Option<u32>,
    /// Randomness.
    pub temp: Option<f32>,
    /// Draw from the N likeliest.
    pub top_k: Option<i32>,
    /// Draw from the likeliest P.
    pub top_p: Option<f32>,
    /// Drop what is below P times the best.
    pub min_p: Option<f32>,
    /// Avoid what was just said.
    pub repeat_penalty: Option<f32>,
    /// How many tokens were just said.
    pub repeat_last_n: Option<i32>,
    /// Makes the draw repeatable.
    pub seed: Option<u32>,
    /// All that no protocol has a default of its own for.
    pub others: SamplerSettings,
    /// Whether and how much the model thinks.
    pub thinking: Thinking,
}

impl Preset {
    /// `settings`, a protocol's own defaults, with what is set here.
    pub(super) fn over(&self, settings: SamplerSettings) -> SamplerSettings {
        SamplerSettings {
            temp: self.temp.unwrap_or(settings.temp),
            top_k: self.top_k.unwrap_or(settings.top_k),
            top_p: self.top_p.unwrap_or(settings.top_p),
            min_p: self.min_p.unwrap_or(settings.min_p),
            repeat_penalty: self.repeat_penalty.unwrap_or(settings.repeat_penalty),
            repeat_last_n: self.repeat_last_n.unwrap_or(settings.repeat_last_n),
            seed: self.seed.or(settings.seed),
            ignore_eos: settings.ignore_eos,
            ..self.others.clone()
        }
    }

    /// How a model is to think, of which a request says what is in `asked`.
    pub(super) fn thinking(&self, asked: Thinking) -> Thinking {
        match asked.wanted {
            Some(_) => asked,
            None => Thinking { budget: asked.budget, ..self.thinking.clone() },
        }
    }

    /// Whether `name` means this model, which clients know as `main`.
    pub(super) fn is_called(&self, main: &str, name: &str) -> bool {
        // Ollama's clients add a tag, and write names as they like.
        let plain = |name: &str| {
            let name = name.to_lowercase();
            name.strip_suffix(":latest").map(str::to_owned).unwrap_or(name)
        };
        let asked = plain(name);
        let known = self.aliases.iter().map(String::as_str).chain([main]);
        asked.is_empty() || known.map(plain).any(|known| known == asked)
    }

    /// Puts what every conversation begins with before `messages`.
    pub(super) fn begin(&self, messages: &mut Vec<Value>) {
        let is_system = |message: &Value| message["role"] == "system";
        let own = self.messages.iter().map(|(role, text)| json!({"role": role, "content": text}));
        let mut begin: Vec<Value> = own.collect();
        if begin.iter().chain(messages.iter()).any(is_system) {
            // A client's instructions replace ours, and stand first.
            if messages.first().is_some_and(is_system) {
                begin.retain(|message| !is_system(message));
                begin.insert(0, messages.remove(0));
            }
        } else if let Some(system) = &self.system {
            begin.insert(0, json!({"role": "system", "content": system}));
        }
        messages.splice(0..0, begin);
    }

    /// The settings in the words of Ollama's model files: names and values, one a line.
    pub(super) fn parameters(&self, n_ctx: u32) -> String {
        let mut lines = vec![("num_ctx", n_ctx.to_string())];
        let mut put = |name, value: Option<String>| lines.extend(value.map(|value| (name, value)));
        put("temperature", self.temp.map(|x| x.to_string()));
        put("top_k", self.top_k.map(|x| x.to_string()));
        put("top_p", self.top_p.map(|x| x.to_string()));
        put("min_p", self.min_p.map(|x| x.to_string()));
        put("repeat_penalty", self.repeat_penalty.map(|x| x.to_string()));
        put("repeat_last_n", self.repeat_last_n.map(|x| x.to_string()));
        put("seed", self.seed.map(|x| x.to_string()));
        put("num_predict", self.max_tokens.map(|x| x.to_string()));
        self.stops.iter().for_each(|stop| put("stop", Some(json!(stop).to_string())));
        let lines = lines.into_iter().map(|(name, value)| format!("{name:<30} {value}"));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// A model file that says all of it.
    pub(super) fn modelfile(&self, name: &str, n_ctx: u32) -> String {
        let mut text = format!("FROM {name}\n");
        if let Some(system) = &self.system {
            text += &format!("SYSTEM \"\"\"{system}\"\"\"\n");
        }
        for line in self.parameters(n_ctx).lines() {
            let (name, value) = line.split_once(' ').unwrap_or((line, ""));
            text += &format!("PARAMETER {name} {}\n", value.trim_start());
        }
        for (role, said) in &self.messages {
            text += &format!("MESSAGE {role} \"\"\"{said}\"\"\"\n");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_mean_the_model() {
        let preset =
            Preset { aliases: vec!["me/Mine".into(), "pirate".into()], ..Preset::default() };
        for name in
            ["", "pirate:latest", "pirate", "Pirate", "me/mine", "me/mine:latest", "main:7b"]
        {
            assert!(preset.is_called("main:7b", name), "{name}");
        }
        for name in ["main", "pirat", "pirate:7b", "mine", "main:7b:x", "latest"] {
            assert!(!preset.is_called("main:7b", name), "{name}");
        }
    }

    #[test]
    fn conversations_begin_as_their_keeper_wants() {
        let say = |role: &str, text: &str| json!({"role": role, "content": text});
        let preset = Preset {
            system: Some("Arr.".into()),
            messages: vec![("user".into(), "Hi".into()), ("assistant".into(), "Ahoy".into())],
            ..Preset::default()
        };
        let mut messages = vec![say("user", "Who?")];
        preset.begin(&mut messages);
        let roles: Vec<&str> = messages.iter().map(|m| m["role"].as_str().unwrap()).collect();
        assert_eq!(roles, ["system", "user", "assistant", "user"]);
        let mut messages = vec![say("system", "Be brief."), say("user", "Who?")];
        preset.begin(&mut messages);
        assert_eq!(messages.len(), 4);
        assert_eq!(messages[0], say("system", "Be brief."));
        let mut messages = vec![say("user", "Who?")];
        Preset::default().begin(&mut messages);
        assert_eq!(messages, [say("user", "Who?")]);
    }

    #[test]
    fn requests_say_what_they_want_otherwise() {
        let others = SamplerSettings { xtc_probability: 0.5, ..SamplerSettings::default() };
        let mut thinking = Thinking::default();
        thinking.set("low").unwrap();
        let preset = Preset { top_k: Some(3), others, thinking, ..Preset::default() };
        let own = SamplerSettings { top_k: 9, top_p: 0.5, ..SamplerSettings::default() };
        let settings = preset.over(own);
        assert_eq!((settings.top_k, settings.top_p, settings.xtc_probability), (3, 0.5, 0.5));
        let off = Thinking { wanted: Some(false), ..Thinking::default() };
        assert_eq!(preset.thinking(off.clone()), off);
        let some = preset.thinking(Thinking { budget: Some(9), ..Thinking::default() });
        assert_eq!((some.effort.as_deref(), some.budget), (Some("low"), Some(9)));
    }

    #[test]
    fn settings_are_told_as_ollama_does() {
        let preset = Preset { temp: Some(0.5), stops: vec!["a \"b\"".into()], ..Preset::default() };
        let told = preset.parameters(4096);
        assert!(told.contains("temperature") && told.contains(r#""a \"b\"""#), "{told}");
        let file = preset.modelfile("x", 4096);
        assert!(
            file.contains("FROM x\n") && file.contains("PARAMETER temperature 0.5\n"),
            "{file}"
        );
    }
}
