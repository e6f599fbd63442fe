//! Whether others computed while something was measured: then it was measured too slow, and is to be measured again.

use std::fs;
use std::time::Instant;

use super::processor::physical_cores;

/// Others may take so much of the cores before a measurement is doubted.
const SHARE: f64 = 0.15;
/// Seconds of one tick of the system's accounts.
const TICK: f64 = 0.01;

/// What processors have done so far. (ticks)
#[derive(Clone, Copy, Debug, Default)]
struct Spent {
    by_all: u64,
    by_us: u64,
}

/// A stretch of time.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    begin: Instant,
    spent: Spent,
}

impl Watch {
    /// From now on.
    pub fn begin() -> Watch {
        Watch { begin: Instant::now(), spent: spent() }
    }

    /// Whether others computed much since then. False where the system does not say.
    pub fn was_busy(&self) -> bool {
        let now = spent();
        let all = now.by_all.saturating_sub(self.spent.by_all);
        let others = all.saturating_sub(now.by_us.saturating_sub(self.spent.by_us));
        #[expect(clippy::cast_precision_loss, reason = "a share needs few digits")]
        let seconds = others as f64 * TICK;
        // Half a tick of each account may be missing or too much.
        let allowed = SHARE * f64::from(physical_cores()) * self.begin.elapsed().as_secs_f64();
        seconds > allowed + 2.0 * TICK
    }
}

fn spent() -> Spent {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    Spent { by_all: by_all(&read("/proc/stat")), by_us: by_us(&read("/proc/self/stat")) }
}

/// What all processors did but wait: of the first line of `/proc/stat`, all but idle and waiting for disks, and guests, who are counted
/// with the others.
fn by_all(stat: &str) -> u64 {
    let line = stat.lines().next().and_then(|line| line.strip_prefix("cpu ")).unwrap_or_default();
    let ticks = line.split_whitespace().map(|n| n.parse::<u64>().unwrap_or(0));
    ticks.enumerate().filter(|(i, _)| ![3, 4].contains(i) && *i < 8).map(|(_, n)| n).sum()
}

/// What this process did: the 14th and the 15th field of `/proc/self/stat`, whose second is a name in brackets.
fn by_us(stat: &str) -> u64 {
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    rest.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_read() {
        assert_eq!(by_all("cpu  10 1 5 1000 100 2 3 4 7 7\ncpu0 1 1 1 1\n"), 25);
        assert_eq!(by_all(""), 0);
        let stat = "77 (a (b) c) R 1 2 3 4 5 6 7 8 9 10 300 20 1 1 20 0";
        assert_eq!(by_us(stat), 320);
        assert_eq!(by_us("77 (x"), 0);
    }

    #[test]
    fn own_work_is_not_others() {
        let watch = Watch { begin: Instant::now(), spent: spent() };
        let begin = Instant::now();
        while begin.elapsed().as_millis() < 50 {
            std::hint::black_box(0);
        }
        let now = spent();
        assert!(now.by_us >= watch.spent.by_us && now.by_all >= watch.spent.by_all);
    }
}
