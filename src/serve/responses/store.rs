//! Responses that are remembered, so that the next one can go on from their names. Bounded, and gone with the server.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use crate::units::Bytes;

/// What is remembered, shared by all who answer.
#[derive(Clone, Debug)]
pub struct Store {
    most: usize,
    kept: Arc<Mutex<VecDeque<Entry>>>,
}

#[derive(Debug)]
struct Entry {
    id: String,
    /// What was asked and answered until then, item by item.
    items: Vec<Value>,
    response: Value,
    bytes: usize,
}

impl Store {
    /// Room for `most` bytes; none of it means that nothing is remembered.
    pub fn new(most: Bytes) -> Store {
        Store { most: most.usize(), kept: Arc::default() }
    }

    /// Whether anything is remembered.
    pub(super) fn is_on(&self) -> bool {
        self.most > 0
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Entry>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a response and what led to it; the oldest ones make room. What is too large by itself is not remembered.
    pub(super) fn put(&self, items: Vec<Value>, response: Value) {
        let id = response["id"].as_str().unwrap_or_default().to_owned();
        // What parsed JSON takes is several times its text.
        let length = |value: &Value| 4 * value.to_string().len();
        let bytes = items.iter().map(length).sum::<usize>() + length(&response);
        if bytes > self.most {
            return;
        }
        let mut kept = self.lock();
        let mut taken: usize = kept.iter().map(|entry| entry.bytes).sum();
        while taken + bytes > self.most {
            taken -= kept.pop_front().map_or(taken, |entry| entry.bytes);
        }
        kept.push_back(Entry { id, items, response, bytes });
    }

    /// What led to a response, and what it said.
    pub(super) fn items(&self, id: &str) -> Option<Vec<Value>> {
        self.lock().iter().find(|entry| entry.id == id).map(|entry| entry.items.clone())
    }

    /// A response.
    pub(super) fn response(&self, id: &str) -> Option<Value> {
        self.lock().iter().find(|entry| entry.id == id).map(|entry| entry.response.clone())
    }

    /// Forgets a response; whether it was there.
    pub(super) fn remove(&self, id: &str) -> bool {
        let mut kept = self.lock();
        let before = kept.len();
        kept.retain(|entry| entry.id != id);
        kept.len() < before
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_oldest_goes() {
        let store = Store::new(Bytes(1000));
        assert!(store.is_on() && !Store::new(Bytes::ZERO).is_on());
        for id in ["a", "b", "c"] {
            store.put(vec![json!("x".repeat(80))], json!({ "id": id }));
        }
        assert_eq!(store.items("a"), None);
        assert_eq!(store.items("c").map(|items| items.len()), Some(1));
        assert_eq!(store.response("b"), Some(json!({"id": "b"})));
        assert!(store.remove("b") && !store.remove("b"));
        store.put(vec![json!("x".repeat(5000))], json!({"id": "large"}));
        assert_eq!(store.items("large"), None);
        assert!(store.items("c").is_some());
    }
}
