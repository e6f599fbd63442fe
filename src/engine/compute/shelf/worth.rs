//! Whether reading a text's state back takes less time than computing it anew: arithmetic with rates that no machine undercuts by
//! much, so that what is read is worth it anywhere.

use crate::engine::loaded::Loaded;

/// Bytes of state that are read and checked in a second, at least.
const READ: f64 = 3e8;
/// What finding a file takes, at most. (seconds)
const FIND: f64 = 0.005;
/// Operations of one thread in a second, at most; of a GPU.
const THREAD: f64 = 6e10;
const GPU: f64 = 2e13;
/// Bytes of weights that a pass brings in a second, at most.
const STREAM: f64 = 7e9;

/// What computing a prompt takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    /// Seconds for each token.
    token: f64,
    /// Seconds for each pass.
    pass: f64,
    n_ubatch: usize,
}

impl Work {
    pub(super) fn of(loaded: &Loaded) -> Work {
        let plan = &loaded.plan;
        let rate = if plan.gpu.is_some() { GPU } else { THREAD * f64::from(loaded.n_threads) };
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let operations = 2.0 * loaded.index.parameters() as f64;
        Work {
            token: operations / rate,
            pass: plan.streamed_bytes().f64() / STREAM,
            n_ubatch: plan.n_ubatch.max(1) as usize,
        }
    }

    /// So much that anything is faster.
    pub(super) fn endless() -> Work {
        Work { token: f64::INFINITY, pass: 0.0, n_ubatch: 1 }
    }

    /// Whether reading `bytes` is faster than computing `tokens`.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub(super) fn pays(&self, bytes: u64, tokens: usize) -> bool {
        let passes = tokens.div_ceil(self.n_ubatch) as f64;
        let compute = self.token * tokens as f64 + self.pass * passes;
        FIND + bytes as f64 / READ < compute
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_streams_pays_and_what_is_tiny_does_not() {
        let streamed = Work { token: 0.0, pass: 1.0, n_ubatch: 512 };
        assert!(streamed.pays(200_000_000, 2000));
        assert!(!streamed.pays(2_000_000_000, 512));
        let tiny = Work { token: 1e-6, pass: 0.0, n_ubatch: 512 };
        assert!(!tiny.pays(1000, 100));
    }
}
