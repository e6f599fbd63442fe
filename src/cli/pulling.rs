//! Downloads that clients of `serve` ask for: one at a time, each on a thread of its own, to its end.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::gguf::printable;
use crate::hub::{self, Options, Progress, Wanted};
use crate::probe::space;
use crate::serve::{Download, Puller};

/// A download, and what came of it.
#[derive(Debug)]
struct Pulling {
    wanted: Wanted,
    progress: Arc<Progress>,
    outcome: Mutex<Option<Result<String, String>>>,
}

impl Download for Pulling {
    fn step(&self) -> String {
        printable(self.progress.step().as_bytes())
    }

    fn bytes(&self) -> (u64, u64) {
        let (done, all) = self.progress.bytes();
        (done.0, all.0)
    }

    fn outcome(&self) -> Option<Result<String, String>> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What begins downloads, and remembers the one under way.
pub(super) fn puller() -> Puller {
    let current: Mutex<Option<Arc<Pulling>>> = Mutex::default();
    Puller::new(move |name| {
        let wanted = Wanted::parse(name).map_err(|error| error.to_string())?;
        let options = Options::from_env().map_err(|error| error.to_string())?;
        let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = current.as_ref().filter(|running| running.outcome().is_none()) {
            return match running.wanted == wanted {
                true => Ok(running.clone() as Arc<dyn Download>),
                false => {
                    Err(format!("another model, {}, is being downloaded", running.wanted.repo))
                }
            };
        }
        let (progress, outcome) = (Arc::default(), Mutex::default());
        let pulling = Arc::new(Pulling { wanted, progress, outcome });
        *current = Some(pulling.clone());
        let there = pulling.clone();
        thread::spawn(move || {
            let pulled = hub::pull(&there.wanted, &options, &space::free, &there.progress);
            let outcome = pulled.map(|pulled| pulled.name).map_err(|error| error.to_string());
            *there.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        });
        Ok(pulling)
    })
}
