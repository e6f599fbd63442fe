//! Which texts are about a question. A model with a head for this reads each of them together with the question and says how well it answers; of
//! other models for vectors, it is how like the question's vector theirs are. Models that write say that they do neither.

use axum::Json;
use serde_json::{Value, json};
use tokio::task::block_in_place;

use super::asked::Asked;
use super::embeddings::vectors;
use super::error::ApiError;
use super::fields::Fields;
use super::prompt;
use super::server::Served;
use crate::engine::Token;
use crate::engine::embed::Wanted;
use crate::talk::pair::Pairs;

/// Where files keep what their models read of a question and a text.
const TEMPLATE: &str = "tokenizer.chat_template.rerank";

/// The most texts of one request.
const MAX_DOCUMENTS: usize = 2048;

/// `/v1/rerank`, and what others call it.
pub(super) async fn rerank(asked: Asked) -> Result<Json<Value>, ApiError> {
    let (server, served, fields) = asked.parts()?;
    fields.text("model")?;
    let query = fields.text("query")?.ok_or_else(|| fields.wrong("query", "there"))?;
    let documents = documents(fields)?;
    let n = i64::try_from(documents.len()).unwrap_or(i64::MAX);
    let top_n = fields.whole("top_n", 1, i64::MAX)?.unwrap_or(n).min(n);
    let repeats = fields.flag("return_documents")?.unwrap_or(false);
    let has_head = ranks(served)?;
    let admitted = server.admit().await?;
    let texts =
        if has_head { pairs(served, query, &documents) } else { each(served, query, &documents) };
    let texts = texts?;
    let n_tokens: usize = texts.iter().map(Vec::len).sum();
    let wanted = if has_head { Wanted::Score } else { Wanted::Vector };
    let found = vectors(server, served, admitted, texts, wanted).await?;
    let scores = if has_head { said(&found) } else { likenesses(&found)? };
    let mut scores: Vec<(usize, f64)> = scores.into_iter().enumerate().collect();
    scores.sort_by(|a, b| b.1.total_cmp(&a.1));
    scores.truncate(usize::try_from(top_n).unwrap_or(usize::MAX));
    let result = |&(index, score): &(usize, f64)| {
        let mut result = json!({"index": index, "relevance_score": score});
        if repeats {
            result["document"] = json!({"text": documents[index]});
        }
        result
    };
    Ok(Json(json!({
        "object": "list", "model": served.name,
        "results": scores.iter().map(result).collect::<Vec<_>>(),
        "usage": {"prompt_tokens": n_tokens, "total_tokens": n_tokens},
    })))
}

/// The texts to be put in order: plain ones, or objects with a `text`.
fn documents(fields: Fields<'_>) -> Result<Vec<&str>, ApiError> {
    let name = if fields.any("texts").is_some() { "texts" } else { "documents" };
    let want = format!("a list of 1 to {MAX_DOCUMENTS} texts");
    let list = fields.list(name)?.unwrap_or_default();
    if list.is_empty() || list.len() > MAX_DOCUMENTS {
        return Err(fields.wrong(name, &want));
    }
    let texts: Option<Vec<&str>> =
        list.iter().map(|value| value.as_str().or_else(|| value["text"].as_str())).collect();
    texts.ok_or_else(|| fields.wrong(name, &want))
}

/// Whether the model has a head that says how well a text answers.
fn ranks(served: &Served) -> Result<bool, ApiError> {
    let name = &served.name;
    if served.engine.writes_text() {
        return Err(ApiError::bad(format!(
            "model '{name}' does not support reranking: an embedding model does"
        )));
    }
    match served.engine.index().ranks() {
        (true, false) => Err(ApiError::bad(format!(
            "model '{name}' does not support reranking: its file says that it does, and has no head for it (cls.output.weight)"
        ))),
        (meant, _) => Ok(meant),
    }
}

/// The question with each of the texts.
fn pairs(served: &Served, query: &str, documents: &[&str]) -> Result<Vec<Vec<Token>>, ApiError> {
    let vocab = served.engine.vocab().map_err(|error| ApiError::engine(&error))?;
    block_in_place(|| {
        let pairs = Pairs::new(vocab, served.engine.index().meta_str(TEMPLATE));
        let pair = |document: &&str| {
            served.check_length(query.len() + document.len())?;
            let tokens = pairs.tokens(query, document);
            let tokens = tokens.map_err(|error| ApiError::engine(&error.into()))?;
            // What does not fit is known before the next is read.
            let room = served.n_ctx as usize;
            if tokens.len() > room {
                return Err(ApiError::too_long(tokens.len(), room));
            }
            Ok(tokens)
        };
        documents.iter().map(pair).collect()
    })
}

/// The question, and the texts.
fn each(served: &Served, query: &str, documents: &[&str]) -> Result<Vec<Vec<Token>>, ApiError> {
    let texts = std::iter::once(&query).chain(documents);
    texts.map(|text| prompt::text_tokens(served, text)).collect()
}

/// What the head said; nothing where it was no number.
fn said(found: &[Vec<f32>]) -> Vec<f64> {
    let number = |numbers: &Vec<f32>| numbers.first().copied().filter(|x| x.is_finite());
    found.iter().map(|numbers| f64::from(number(numbers).unwrap_or(0.0))).collect()
}

/// How like the first vector the others are.
fn likenesses(vectors: &[Vec<f32>]) -> Result<Vec<f64>, ApiError> {
    let (asked, rest) =
        vectors.split_first().ok_or_else(|| ApiError::internal("no vectors came"))?;
    Ok(rest.iter().map(|vector| likeness(asked, vector)).collect())
}

/// The cosine of the angle between two vectors; 0 if there is none.
fn likeness(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()
    };
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    if lengths.is_normal() { dot(a, b) / lengths } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn likeness_is_a_cosine() {
        assert!((likeness(&[1.0, 1.0], &[2.0, 2.0]) - 1.0).abs() < 1e-9);
        assert!(likeness(&[1.0, 0.0], &[0.0, 5.0]).abs() < 1e-9);
        assert_eq!(likeness(&[0.0], &[1.0]), 0.0);
        assert_eq!(likeness(&[f32::NAN], &[1.0]), 0.0);
    }
}
