//! Conversations that are longer than the context: Ollama's clients count no tokens, so their oldest messages are left out.

use serde_json::Value;

use crate::engine::Token;
use crate::engine::batch::Course;
use crate::serve::ask;
use crate::serve::error::{ApiError, Protocol};
use crate::serve::fields::Fields;
use crate::serve::prompt;
use crate::serve::server::{Served, Server};
use crate::talk::ask::{Ask, Prompt};

/// The prompt of a request's conversation, and if that is too long, of its system messages and as many of the last ones as there is
/// room for, the last in any case. `truncate: false` leaves it as it is, and `num_ctx` may ask for less room.
pub(super) fn open(
    server: &Server,
    served: &Served,
    fields: Fields<'_>,
) -> Result<(Prompt, Vec<Token>, Course), ApiError> {
    let asked = ask::ask(fields, Protocol::Ollama)?;
    let open = |messages: Vec<Value>| {
        let asked = Ask { messages, ..asked.clone() };
        prompt::open(server, served, asked, Protocol::Ollama)
    };
    let messages = &asked.messages;
    let all = open(messages.clone())?;
    let wanted = match fields.object("options", "options.")? {
        Some(options) => options.whole("num_ctx", 0, i64::from(u32::MAX))?,
        None => None,
    };
    let wanted = wanted.and_then(|n| usize::try_from(n).ok()).filter(|&n| n > 1);
    let room = (served.n_ctx as usize).min(wanted.unwrap_or(usize::MAX)).saturating_sub(1);
    if all.1.len() <= room || fields.flag("truncate")? == Some(false) || messages.is_empty() {
        return Ok(all);
    }
    // Turns begin with what a user says: templates refuse conversations that begin otherwise.
    let last = messages.len() - 1;
    let begins = (1..last).filter(|&i| messages[i]["role"] == "user").chain([last]);
    let begins: Vec<usize> = begins.collect();
    let from = |begin: usize| {
        let kept = messages.iter().enumerate();
        let kept = kept.filter(|(i, message)| *i >= begin || message["role"] == "system");
        open(kept.map(|(_, message)| message.clone()).collect())
    };
    // The later one begins, the shorter it is: halves are tried.
    let (mut low, mut high) = (0, begins.len() - 1);
    let mut best = from(begins[high])?;
    while low < high {
        let middle = usize::midpoint(low, high);
        let shorter = from(begins[middle])?;
        if shorter.1.len() <= room {
            (best, high) = (shorter, middle);
        } else {
            low = middle + 1;
        }
    }
    Ok(best)
}
