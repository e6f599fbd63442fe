//! Vectors of texts, for OpenAI's clients and for Ollama's.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::asked::Asked;
use super::error::ApiError;
use super::fields::Fields;
use super::job::{Embed, Job};
use super::prompt;
use super::queue::{ENDED, Place};
use super::server::{Admitted, Listener, Served, Server};
use crate::engine::embed::Wanted;
use crate::engine::{Error, Token};

/// The most texts of one request.
const MAX_INPUTS: usize = 2048;

/// `/v1/embeddings`.
pub(super) async fn openai(asked: Asked) -> Result<Json<Value>, ApiError> {
    let Asked { server, body } = asked;
    let served = server.model()?;
    let fields = Fields::of(&body);
    fields.text("model")?;
    let base64 = match fields.text("encoding_format")? {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => return Err(fields.wrong("encoding_format", "float or base64")),
    };
    let length = length(served, fields)?;
    let admitted = server.admit().await?;
    let texts = prompt::inputs(served, fields, "input", MAX_INPUTS)?;
    let n_tokens: usize = texts.iter().map(Vec::len).sum();
    drop(body);
    let vectors = vectors(&server, served, admitted, texts, Wanted::Vector).await?;
    let entry = |(index, vector): (usize, Vec<f32>)| {
        let vector = shortened(vector, length);
        let embedding = if base64 { packed(&vector).into() } else { json!(vector) };
        json!({"object": "embedding", "index": index, "embedding": embedding})
    };
    let data: Vec<Value> = vectors.into_iter().enumerate().map(entry).collect();
    Ok(Json(json!({
        "object": "list", "data": data, "model": served.name,
        "usage": {"prompt_tokens": n_tokens, "total_tokens": n_tokens},
    })))
}

/// Little-endian floats in base64.
fn packed(vector: &[f32]) -> String {
    let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
    BASE64_STANDARD.encode(bytes)
}

/// `/api/embed`.
pub(super) async fn ollama(asked: Asked) -> Result<Json<Value>, ApiError> {
    let begin = Instant::now();
    let Asked { server, body } = asked;
    let served = server.model()?;
    let fields = Fields::of(&body);
    server.named(served, fields.text("model")?)?;
    let length = length(served, fields)?;
    let answer = |vectors: Vec<Vec<f32>>, n_tokens: usize| {
        Ok(Json(json!({
            "model": served.name, "embeddings": vectors, "load_duration": 0,
            "total_duration": u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX),
            "prompt_eval_count": n_tokens,
        })))
    };
    // Clients have a model loaded so.
    if is_nothing(fields.any("input")) {
        return answer(Vec::new(), 0);
    }
    let admitted = server.admit().await?;
    let inputs = match fields.flag("truncate")?.unwrap_or(true) {
        true => prompt::beginnings,
        false => prompt::inputs,
    };
    let texts = inputs(served, fields, "input", MAX_INPUTS)?;
    let n_tokens: usize = texts.iter().map(Vec::len).sum();
    drop(body);
    let vectors = vectors(&server, served, admitted, texts, Wanted::Vector).await?;
    answer(vectors.into_iter().map(|vector| shortened(vector, length)).collect(), n_tokens)
}

/// `/api/embeddings`, Ollama's older way.
pub(super) async fn ollama_old(asked: Asked) -> Result<Json<Value>, ApiError> {
    let Asked { server, body } = asked;
    let served = server.model()?;
    let fields = Fields::of(&body);
    server.named(served, fields.text("model")?)?;
    let text = fields.text("prompt")?.unwrap_or_default();
    if text.is_empty() {
        return Ok(Json(json!({"embedding": []})));
    }
    let admitted = server.admit().await?;
    let tokens = prompt::text_tokens(served, text)?;
    drop(body);
    let mut vectors = vectors(&server, served, admitted, vec![tokens], Wanted::Vector).await?;
    Ok(Json(json!({ "embedding": vectors.pop() })))
}

/// Whether there is nothing to make vectors of.
fn is_nothing(input: Option<&Value>) -> bool {
    match input {
        None => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        Some(_) => false,
    }
}

/// How many numbers of each vector are wanted. Who wants more than the model makes is told before anything is computed.
fn length(served: &Served, fields: Fields<'_>) -> Result<usize, ApiError> {
    let made = served.engine.vector_length();
    let Some(wanted) = fields.whole("dimensions", 1, 1 << 20)? else { return Ok(made) };
    let wanted = usize::try_from(wanted).ok().filter(|wanted| *wanted <= made);
    wanted.ok_or_else(|| {
        fields.wrong("dimensions", &format!("at most {made}, as the model makes them"))
    })
}

/// The first numbers of a vector, as long as 1 again: what OpenAI's and Ollama's servers make of `dimensions`. Only models that were
/// trained for it put into them what matters.
fn shortened(mut vector: Vec<f32>, length: usize) -> Vec<f32> {
    if length < vector.len() {
        vector.truncate(length);
        let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        if norm > 0.0 {
            vector.iter_mut().for_each(|x| *x /= norm);
        }
    }
    vector
}

/// The vectors of `texts`, or the one number of each that is wanted instead.
pub(super) async fn vectors(
    server: &Arc<Server>,
    served: &Served,
    admitted: Admitted,
    texts: Vec<Vec<Token>>,
    wanted: Wanted,
) -> Result<Vec<Vec<f32>>, ApiError> {
    let room = served.n_ctx as usize;
    if texts.iter().any(Vec::is_empty) {
        return Err(ApiError::field("input", Error::EmptyPrompt.to_string()));
    }
    if let Some(tokens) = texts.iter().map(Vec::len).find(|n| *n > room) {
        let error = ApiError::engine(&Error::ContextTooSmall { tokens, room });
        return Err(ApiError { param: Some("input".to_owned()), ..error });
    }
    let place = admitted.place.clone();
    place.widen(texts.len())?;
    drop(admitted);
    let (reply, answer) = oneshot::channel();
    // Of those who wait for this one, too, depends whether a pass is for somebody.
    let mut waiting = Waiting { listener: server.listen(), place: place.clone() };
    let embed = Embed { wanted, texts: texts.into(), vectors: Vec::new(), reply };
    server.queue.push(Job::Embed(embed), place)?;
    // Dropped without an answer: the worker failed.
    let answer = answer.await.unwrap_or_else(|_| Err(ApiError::unavailable(ENDED)));
    waiting.listener.is_done = true;
    answer
}

/// Somebody who waits for vectors.
struct Waiting {
    listener: Listener,
    place: Place,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.place.free();
    }
}
