//! Conversations that are longer than the context: how many tokens they have, and what is left out of them so that they fit, for
//! clients that ask for it. It knows no protocol.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::HeaderName;
use serde_json::{Value, json};

use super::ask;
use super::error::{ApiError, Protocol};
use super::fields::{self, Fields};
use super::prompt;
use super::server::{Served, Server};
use crate::engine::Token;
use crate::engine::batch::Course;
use crate::talk::ask::{Ask, Prompt};

/// The header of an answer that tells how many messages its prompt is without.
pub(super) const DROPPED: HeaderName = HeaderName::from_static("x-airrun-dropped");

/// A prompt fits if it leaves this share of the context for the answer, or as many tokens as the answer may have at most.
const LEAST_ROOM: usize = 8;
/// If it does not, so much of the context becomes free at once: each time that turns are left out, what was computed of the
/// conversation is lost, and so it should last for some questions.
const NEW_ROOM: usize = 2;

/// POST `/api/airrun/count`: the tokens that `messages` have as a prompt, and the context.
pub(super) async fn count(
    State(server): State<Arc<Server>>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let served = server.model()?;
    let body = fields::read(&server, request).await?;
    // Its turn; nothing of the queue.
    let _admitted = server.admit().await?;
    let asked = ask::ask(Fields::of(&body), Protocol::OpenAi)?;
    let asked = Ask { tools: None, ..asked };
    let (_, tokens, _) = prompt::open(&server, served, asked, Protocol::OpenAi)?;
    Ok(Json(json!({"tokens": tokens.len(), "n_ctx": served.n_ctx})))
}

/// Whether a request wants old turns to be left out where the context is too small: OpenAI's name for it.
pub(super) fn wanted(fields: Fields<'_>) -> Result<bool, ApiError> {
    match fields.text("truncation")? {
        None | Some("disabled") => Ok(false),
        Some("auto") => Ok(true),
        Some(_) => Err(fields.wrong("truncation", "auto or disabled")),
    }
}

/// The prompt of a conversation, and its tokens, without its oldest turns, if there are too many for the context; and how many messages that leaves
/// out. An answer has `max` tokens at most. Instructions stay, and so does the last turn: it may not fit even alone.
pub(super) fn fit(
    server: &Server,
    served: &Served,
    asked: Ask,
    max: Option<usize>,
) -> Result<(Prompt, Vec<Token>, Course, usize), ApiError> {
    let n_ctx = served.n_ctx as usize;
    let messages = &asked.messages;
    let open = |from: usize| {
        let kept = Ask { messages: without(messages, from), ..asked.clone() };
        prompt::open(server, served, kept, Protocol::OpenAi)
    };
    let (prompt, whole, course) = open(0)?;
    let room = |share: usize| max.unwrap_or(usize::MAX).min(n_ctx / share);
    let turns = turns(messages);
    if whole.len() + room(LEAST_ROOM) <= n_ctx || turns.len() < 2 {
        return Ok((prompt, whole, course, 0));
    }
    // The first of the later turns from which on the conversation fits; the last if none does.
    let (mut low, mut high) = (1, turns.len() - 1);
    while low < high {
        let middle = usize::midpoint(low, high);
        if open(turns[middle])?.1.len() + room(NEW_ROOM) <= n_ctx {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    let begin = turns[low];
    let (prompt, tokens, course) = open(begin)?;
    Ok((prompt, tokens, course, messages.len() - without(messages, begin).len()))
}

/// Where turns begin: with each question.
fn turns(messages: &[Value]) -> Vec<usize> {
    let asks = |(i, message): (usize, &Value)| (message["role"] == "user").then_some(i);
    messages.iter().enumerate().filter_map(asks).collect()
}

/// The messages from number `from` on, and instructions from before.
fn without(messages: &[Value], from: usize) -> Vec<Value> {
    let stays = |(i, message): &(usize, &Value)| *i >= from || message["role"] == "system";
    messages.iter().enumerate().filter(stays).map(|(_, message)| message.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_stay() {
        let roles = ["system", "user", "assistant", "user", "assistant", "tool", "user"];
        let messages: Vec<Value> = roles.iter().map(|role| json!({"role": role})).collect();
        assert_eq!(turns(&messages), [1, 3, 6]);
        let roles = |from| -> Vec<Value> {
            without(&messages, from).iter().map(|m| m["role"].clone()).collect()
        };
        assert_eq!(roles(0).len(), 7);
        assert_eq!(roles(3), ["system", "user", "assistant", "tool", "user"]);
        assert_eq!(roles(6), ["system", "user"]);
    }
}
