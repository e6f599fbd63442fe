//! What a client wants written, in no protocol's words: checked, and on its way to the worker.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::Value;
use tokio::task::block_in_place;

use super::answers::Answers;
use super::error::ApiError;
use super::fields::Fields;
use super::preset::Preset;
use super::server::{Admitted, Served, Server};
use super::worker::Job;
use crate::engine::batch::Request;
use crate::engine::{Error, Grammar, SamplerSettings, Token, grammar_of_schema};
use crate::talk::StopWords;

/// The most texts of one request.
pub(super) const MAX_TEXTS: i64 = 16;
/// The most stop words, and the longest. (bytes)
const MAX_STOPS: usize = 16;
const MAX_STOP: usize = 1024;
/// The most alternatives that are told of each token.
pub(super) const MAX_LOGPROBS: i64 = 20;
/// The most tokens with a bias.
const MAX_BIASES: usize = 1024;

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
    /// How many texts of each prompt.
    pub(super) n: usize,
}

impl Order {
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
            sink,
        });
        server.queue.push(Job::Write(requests.collect()), place)?;
        Ok(answers)
    }
}

/// How tokens are chosen: the names that both protocols share, in `fields`; what is not there is as in `default`.
pub(super) fn settings(
    fields: Fields<'_>,
    default: &SamplerSettings,
) -> Result<SamplerSettings, ApiError> {
    let int = |n: i64| i32::try_from(n).unwrap_or(i32::MAX);
    // Any whole number is a seed; its last bits count.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the last bits are meant"
    )]
    let seed = fields.whole("seed", i64::MIN, i64::MAX)?.map(|n| n as u32);
    let top_p = fields.number("top_p", 0.0, 1.0)?.unwrap_or(default.top_p);
    Ok(SamplerSettings {
        temp: fields.number("temperature", 0.0, 100.0)?.unwrap_or(default.temp),
        top_k: fields.whole("top_k", -1, 1 << 30)?.map_or(default.top_k, |k| int(k.max(0))),
        // Of nothing, nothing can be drawn: the likeliest token is always there.
        top_p: top_p.max(f32::MIN_POSITIVE),
        min_p: fields.number("min_p", 0.0, 1.0)?.unwrap_or(default.min_p),
        repeat_penalty: fields
            .number("repeat_penalty", 1e-3, 100.0)?
            .unwrap_or(default.repeat_penalty),
        frequency_penalty: fields.number("frequency_penalty", -2.0, 2.0)?.unwrap_or(0.0),
        presence_penalty: fields.number("presence_penalty", -2.0, 2.0)?.unwrap_or(0.0),
        repeat_last_n: fields
            .whole("repeat_last_n", -1, 1 << 16)?
            .map_or(default.repeat_last_n, |n| if n < 0 { 1 << 16 } else { int(n) }),
        logit_bias: biases(fields)?,
        ignore_eos: fields.flag("ignore_eos")?.unwrap_or(false),
        seed: seed.or(default.seed),
    })
}

/// `logit_bias`: an object of token numbers.
fn biases(fields: Fields<'_>) -> Result<Vec<(Token, f32)>, ApiError> {
    let want = "an object of token numbers and biases from -100 to 100";
    let wrong = || fields.wrong("logit_bias", want);
    let Some(value) = fields.any("logit_bias") else { return Ok(Vec::new()) };
    let map = value.as_object().filter(|map| map.len() <= MAX_BIASES).ok_or_else(wrong)?;
    let bias = |(token, bias): (&String, &Value)| {
        #[expect(clippy::cast_possible_truncation, reason = "at most 100")]
        let number = bias.as_f64().filter(|b| b.abs() <= 100.0).map(|b| b as f32);
        // OpenAI's -100 is a ban.
        let number = number.map(|b| if b <= -100.0 { f32::NEG_INFINITY } else { b });
        Some((token.parse().ok()?, number?))
    };
    map.iter().map(bias).collect::<Option<_>>().ok_or_else(wrong)
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
pub(super) fn schema_grammar(param: &str, schema: &Value) -> Result<Grammar, ApiError> {
    // Some take their time, and other clients' requests should not.
    let rules = block_in_place(|| grammar_of_schema(schema))
        .map_err(|e| ApiError::field(param, e.to_string()))?;
    Ok(Grammar { rules, root: "root".to_owned() })
}
