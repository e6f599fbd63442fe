//! How a model would run here, guessed from its header and a few numbers about the machine: good enough for a list. `airrun plan`
//! asks ggml and measures; this does neither.

use serde::Serialize;

use super::Facts;
use crate::gguf::usual_hits;
use crate::units::{Bytes, MIB, Rate};

/// The program, its vocabulary and its compute buffers. (bytes)
const PROCESS: Bytes = Bytes(320 * MIB.0);
/// Tokens of context that a conversation gets when nobody says otherwise.
const CTX: u64 = 4096;

/// Where a model would run from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// All of it is in memory.
    Fits,
    /// What does not fit is read from disk as it is needed.
    StreamsFromDisk,
    /// Not even its parts fit.
    TooLarge,
}

/// What a machine offers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Room {
    /// Memory that may be used.
    pub memory: Bytes,
    /// The disk; `None` if nobody measured it.
    pub disk: Option<Rate>,
}

/// How a model would run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Outlook {
    /// From where.
    pub how: How,
    /// One token after another; `None` where something was not measured.
    pub tokens_per_second: Option<f64>,
    /// Of a mixture that streams: the share of a token's experts that will be in memory, from 0 to 1.
    pub hits: Option<f64>,
}

impl Facts {
    /// How the model would run in `room`, where its weights are computed with at the rate `compute`.
    pub fn outlook(&self, room: &Room, compute: Option<Rate>) -> Outlook {
        let context = Bytes(self.kv_per_token) * self.context.unwrap_or(CTX).min(CTX);
        let needed = PROCESS + context + Bytes(self.weights);
        let share = Bytes(self.blocks).f64() * self.touched + Bytes(self.output).f64();
        let computing = compute.filter(|r| r.0 > 0.0).map(|r| share / r.0);
        let missing = needed.saturating_sub(room.memory);
        if missing == Bytes::ZERO {
            let tokens_per_second = computing.map(f64::recip);
            return Outlook { how: How::Fits, tokens_per_second, hits: None };
        }
        // Two slots hold what streams while it is computed with.
        let slots = Bytes(self.largest_block) * 2;
        let streamed = missing + slots;
        if streamed > Bytes(self.blocks) + slots {
            return Outlook { how: How::TooLarge, tokens_per_second: None, hits: None };
        }
        let reading = room.disk.filter(|r| r.0 > 0.0);
        let lacking = (missing.f64() / Bytes(self.blocks).f64().max(1.0)).min(1.0);
        let hits = (self.touched < 1.0).then(|| usual_hits(1.0 - lacking));
        let seconds = if let Some(hits) = hits {
            // Slots and kept experts are the same memory, and what a token lacks is known when its router was computed: it waits for it.
            let read = Bytes(self.blocks).f64() * self.touched * (1.0 - hits);
            computing.zip(reading).map(|(compute, disk)| compute + read / disk.0)
        } else {
            let reading = reading.map(|r| r.seconds(streamed.min(Bytes(self.blocks))));
            computing.zip(reading).map(|(a, b)| a.max(b))
        };
        let tokens_per_second = seconds.map(f64::recip);
        Outlook { how: How::StreamsFromDisk, tokens_per_second, hits }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::GIB;

    fn facts() -> Facts {
        Facts {
            title: String::new(),
            architecture: "llama".to_owned(),
            parameters: 1,
            quantisation: String::new(),
            purpose: None,
            context: Some(1 << 17),
            weights: 9 * GIB.0,
            blocks: 8 * GIB.0,
            touched: 1.0,
            largest_block: GIB.0 / 4,
            output: GIB.0,
            kv_per_token: 1 << 16,
            types: Vec::new(),
            refused: None,
        }
    }

    #[test]
    fn a_mixture_reads_what_its_tokens_lack() {
        let rate = Some(Rate(GIB.f64()));
        let at = |memory, touched| {
            let facts = Facts { touched, ..facts() };
            facts.outlook(&Room { memory, disk: rate }, Some(Rate(1e12))).tokens_per_second.unwrap()
        };
        // A sixteenth of it, of which some four fifths are there.
        let (all, some) = (at(GIB * 4, 1.0), at(GIB * 4, 1.0 / 16.0));
        assert!(some > 16.0 * 2.0 * all && some < 16.0 * 16.0 * all, "{all} {some}");
        assert!(at(GIB * 6, 1.0 / 16.0) > some);
        let found = |gib| {
            let room = Room { memory: GIB * gib, disk: rate };
            Facts { touched: 1.0 / 16.0, ..facts() }.outlook(&room, None).hits
        };
        assert!(found(4).is_some_and(|hits| (0.5..0.9).contains(&hits)), "{:?}", found(4));
        assert!(found(6) > found(4) && found(12).is_none());
    }

    #[test]
    fn less_memory_is_slower() {
        let rate = Some(Rate(9.0 * GIB.f64()));
        let at = |gib: u64| {
            let room = Room { memory: GIB * gib, disk: Some(Rate(GIB.f64())) };
            facts().outlook(&room, rate)
        };
        assert_eq!(at(10), Outlook { how: How::Fits, tokens_per_second: Some(1.0), hits: None });
        let some = at(6);
        assert_eq!(some.how, How::StreamsFromDisk);
        let speed = some.tokens_per_second.unwrap();
        assert!(speed > 0.2 && speed < 0.4, "{speed}");
        assert!(at(3).tokens_per_second < at(6).tokens_per_second);
        assert_eq!(at(1).how, How::TooLarge);
        let unknown = facts().outlook(&Room { memory: GIB * 6, disk: None }, rate);
        assert_eq!(unknown.tokens_per_second, None);
    }
}
