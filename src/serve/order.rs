//! What a client wants written, in no protocol's words: checked, and on its way to the worker.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::Value;
use tokio::task::block_in_place;

use super::answers::Answers;
use super::error::ApiError;
use super::fields::Fields;
use super::job::Job;
use super::preset::Preset;
use super::server::{Admitted, Served, Server};
use crate::engine::batch::{Course, Request};
use crate::engine::{Error, Grammar, SamplerSettings, Token, check_grammar_text};
use crate::talk::StopWords;

/// The most texts of one request.
pub(super) const MAX_TEXTS: i64 = 16;
/// The most stop words, and the longest. (bytes)
const MAX_STOPS: usize = 16;
const MAX_STOP: usize = 1024;
/// The most alternatives that are told of each token.
pub(super) const MAX_LOGPROBS: i64 = 20;

/// A text to be written.
#[derive(Clone, Debug)]
pub(super) struct Order {
    /// What to continue: mostly one prompt.
    pub(super) prompts: Vec<Vec<Token>>,
    pub(super) settings: SamplerSettings,
    pub(super) max_tokens: Option<usize>,
    pub(super) stops: Vec<String>,
    pub(super) logprobs: Option<usize>,
    pub(super) grammar: Option<Grammar>,
    /// Whether to tell how far the prompt is.
    pub(super) progress: bool,
    /// Control tokens whose texts are a part of the answer.
    pub(super) shown: Arc<HashSet<Token>>,
    /// What the text is made to say.
    pub(super) course: Course,
    /// How many texts of each prompt.
    pub(super) n: usize,
}

impl Order {
    /// What a schema asks for and nothing holds the answer to.
    pub(super) fn loose(&self) -> Vec<String> {
        self.grammar.as_ref().map(|grammar| grammar.loose.clone()).unwrap_or_default()
    }

    /// Sends it to the worker.
    ///
    /// # Errors
    ///
    /// It does not fit the context, or the queue has no place for each of its texts.
    pub(super) fn submit(
        self,
        server: &Arc<Server>,
        served: &Served,
        admitted: Admitted,
    ) -> Result<Answers, ApiError> {
        let room = (served.n_ctx as usize).saturating_sub(1);
        for tokens in self.prompts.iter().map(Vec::len) {
            if tokens > room {
                return Err(ApiError::engine(&Error::ContextTooSmall { tokens, room }));
            }
            if tokens == 0 {
                return Err(ApiError::engine(&Error::EmptyPrompt));
            }
        }
        if let Some(grammar) = &self.grammar {
            let checked = block_in_place(|| served.engine.check_grammar(grammar));
            checked.map_err(|error| ApiError::engine(&error))?;
        }
        let (n, place) = (self.prompts.len() * self.n, admitted.place);
        place.widen(n)?;
        let (answers, sinks) = Answers::new(server, place.clone(), n, self.progress);
        let requests = sinks.into_iter().enumerate().map(|(i, sink)| Request {
            prompt: self.prompts[i / self.n].clone(),
            settings: SamplerSettings {
                // Texts of one request must differ, and still be repeatable.
                seed: self.settings.seed.map(|seed| seed.wrapping_add((i % self.n) as u32)),
                ..self.settings.clone()
            },
            grammar: self.grammar.clone(),
            max_tokens: self.max_tokens,
            stops: StopWords::new(self.stops.iter().cloned()),
            logprobs: self.logprobs,
            shown: self.shown.clone(),
            course: self.course.clone(),
            sink,
        });
        server.queue.push(Job::Write(requests.collect()), place)?;
        Ok(answers)
    }
}

/// `stop`: a text or some; what ends every answer of this model does so beside them.
pub(super) fn stops(fields: Fields<'_>, preset: &Preset) -> Result<Vec<String>, ApiError> {
    let stops = fields.texts("stop", MAX_STOPS)?;
    if stops.iter().any(|stop| stop.len() > MAX_STOP) {
        return Err(fields.wrong("stop", "at most 1024 bytes long"));
    }
    Ok(stops.into_iter().map(str::to_owned).chain(preset.stops.iter().cloned()).collect())
}

/// The grammar of what fits a JSON schema.
pub(super) fn schema_grammar(
    param: &str,
    schema: &Value,
    strict: bool,
) -> Result<Grammar, ApiError> {
    // Some take their time, and other clients' requests should not.
    block_in_place(|| Grammar::of_schema(schema, strict))
        .map_err(|e| ApiError::field(param, e.to_string()))
}

/// `json_schema` and `grammar`, as llama-server takes them.
pub(super) fn own_grammar(fields: Fields<'_>) -> Result<Option<Grammar>, ApiError> {
    match fields.any("json_schema") {
        Some(schema) if schema.is_object() => {
            return schema_grammar("json_schema", schema, true).map(Some);
        }
        Some(_) => return Err(fields.wrong("json_schema", "a JSON schema, which is an object")),
        None => {}
    }
    let Some(text) = fields.text("grammar")?.filter(|text| !text.trim().is_empty()) else {
        return Ok(None);
    };
    check_grammar_text(text).map_err(|error| ApiError::field("grammar", error.to_string()))?;
    Ok(Some(Grammar::of(text.to_owned())))
}

/// Whether a request may bring a grammar of its own: one can be written that takes any time to follow, for which all others wait.
pub(super) fn permit_grammar(server: &Server, fields: Fields<'_>) -> Result<(), ApiError> {
    if server.config.grammars || fields.any("grammar").is_none_or(|grammar| grammar == "") {
        return Ok(());
    }
    Err(fields
        .wrong("grammar", "left out: this server takes none (--grammars); JSON schemas it does"))
}
