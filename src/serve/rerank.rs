//! Which texts are about a question: the order in which their vectors are like its own. For models that make vectors; others say that
//! they do not. What a model with a head of its own for this would say is not asked.

use axum::Json;
use serde_json::{Value, json};

use super::asked::Asked;
use super::embeddings::vectors;
use super::error::ApiError;
use super::fields::Fields;
use super::prompt;
use super::server::Served;

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
    ranks(served)?;
    let admitted = server.admit().await?;
    let texts = std::iter::once(query).chain(documents.iter().copied());
    let texts =
        texts.map(|text| prompt::text_tokens(served, text)).collect::<Result<Vec<_>, _>>()?;
    let n_tokens: usize = texts.iter().map(Vec::len).sum();
    let vectors = vectors(server, served, admitted, texts).await?;
    let (asked, rest) =
        vectors.split_first().ok_or_else(|| ApiError::internal("no vectors came"))?;
    let mut scores: Vec<(usize, f64)> =
        rest.iter().map(|vector| likeness(asked, vector)).enumerate().collect();
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

/// Whether the model was made to compare texts.
fn ranks(served: &Served) -> Result<(), ApiError> {
    match served.engine.writes_text() {
        false => Ok(()),
        true => Err(ApiError::bad(format!(
            "model '{}' does not support reranking: an embedding model does",
            served.name
        ))),
    }
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
