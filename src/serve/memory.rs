//! The memory that requests may take while they are read: bodies, and what parsing makes of them, borrow it and give it back. Of what is
//! given back, the system gets what it lent. It knows nothing of what requests say.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::error::ApiError;
use crate::heap;
use crate::units::Bytes;

/// What is counted in. (bytes)
const UNIT: usize = 1 << 10;
/// A request borrows so much without being counted: as many connections as there may be, it is little. (bytes)
const FREE: usize = 16 << 10;
/// How long a request waits for others to give back, in all.
const WAIT: Duration = Duration::from_secs(10);
/// What is worth to be given back to the system. (bytes)
const LARGE: usize = 1 << 20;
/// How long memory that was given back is kept for the next one.
const PAUSE: Duration = Duration::from_secs(1);

/// What there is for all requests.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    all: Bytes,
    room: Arc<Semaphore>,
    returned: Arc<Notify>,
}

/// What one of them has borrowed.
#[derive(Debug)]
pub(super) struct Loan {
    memory: Memory,
    permit: Option<OwnedSemaphorePermit>,
    /// What it may still wait.
    patience: Duration,
}

impl Memory {
    /// `all` of it.
    pub(super) fn new(all: Bytes) -> Memory {
        let units = (all.usize() / UNIT).clamp(1, u32::MAX as usize);
        Memory { all, room: Arc::new(Semaphore::new(units)), returned: Arc::default() }
    }

    /// Nothing yet.
    pub(super) fn borrow(&self) -> Loan {
        Loan { memory: self.clone(), permit: None, patience: WAIT }
    }

    /// Gives the system what was given back here, for ever.
    pub(super) async fn give_back(self) {
        loop {
            self.returned.notified().await;
            tokio::time::sleep(PAUSE).await;
            // Nothing can be done about a thread that fails at it.
            let _ = tokio::task::spawn_blocking(heap::give_back).await;
        }
    }
}

impl Loan {
    /// Borrows as much as makes `bytes` in all.
    ///
    /// # Errors
    ///
    /// 413: there will never be so much; 429: others do not give back.
    pub(super) async fn grow(&mut self, bytes: usize) -> Result<(), ApiError> {
        let Memory { all, room, .. } = &self.memory;
        let bytes = bytes.saturating_sub(FREE);
        if bytes as u64 > all.0 {
            return Err(ApiError::greedy(*all));
        }
        let have = self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let Ok(more) = u32::try_from(bytes.div_ceil(UNIT).saturating_sub(have)) else {
            return Err(ApiError::greedy(*all));
        };
        if more == 0 {
            return Ok(());
        }
        // Under a limit of its own, the program is to end this request and not itself.
        if bytes >= LARGE && !heap::has_room(bytes) {
            return Err(ApiError::crowded());
        }
        let begin = Instant::now();
        let permit = timeout(self.patience, room.clone().acquire_many_owned(more)).await;
        self.patience = self.patience.saturating_sub(begin.elapsed());
        let Ok(Ok(permit)) = permit else { return Err(ApiError::crowded()) };
        match &mut self.permit {
            Some(mine) => mine.merge(permit),
            None => self.permit = Some(permit),
        }
        Ok(())
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        let units = self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        if units * UNIT >= LARGE {
            self.memory.returned.notify_one();
        }
    }
}

/// What a value of JSON takes beside its text, with what its list or object grows by. (bytes)
const VALUE: usize = 160;
/// A text is there so many times: as it came, parsed, and as what is made of it.
const COPIES: usize = 3;

/// What it takes to read a JSON text, at most about. (bytes)
pub(super) fn cost(json: &[u8]) -> usize {
    let (mut values, mut in_text, mut escaped) = (1_usize, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b',' | b':' | b'[' | b'{' if !in_text => values += 1,
            _ => {}
        }
    }
    COPIES * json.len() + VALUE * values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_borrowed_is_given_back() {
        let memory = Memory::new(Bytes(1 << 20));
        let mut first = memory.borrow();
        first.grow(FREE).await.unwrap();
        assert_eq!(memory.room.available_permits(), 1024);
        first.grow(FREE + (600 << 10)).await.unwrap();
        first.grow(FREE + (500 << 10)).await.unwrap();
        assert_eq!(memory.room.available_permits(), 424);
        // Another waits until the first has gone.
        let mut second = memory.borrow();
        let grown = tokio::join!(second.grow(FREE + (700 << 10)), async { drop(first) });
        grown.0.unwrap();
        assert_eq!(memory.room.available_permits(), 324);
        let never = memory.borrow().grow(FREE + (1 << 20) + 1).await.unwrap_err();
        assert_eq!(never.status, 413);
        drop(second);
        assert_eq!(memory.room.available_permits(), 1024);
    }

    #[test]
    fn values_cost_and_texts_do_not() {
        let text = serde_json::json!({"text": "[1,2,{:}]\\\"".repeat(1000)}).to_string();
        assert!(cost(text.as_bytes()) < 4 * text.len(), "{}", cost(text.as_bytes()));
        let list = format!("[{}1]", "1,".repeat(1000));
        assert!(cost(list.as_bytes()) > 150_000);
        assert!(cost(b"") > 0 && cost(b"\"\\") > 0);
    }
}
