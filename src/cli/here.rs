//! How models would run on this machine, as lists say it: guessed from headers and what can be measured in a moment. `airrun plan`
//! knows better.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::gguf::GgmlType;
use crate::models::{Facts, How, Outlook, Room};
use crate::plan::Kind;
use crate::probe::{self, quick};
use crate::units::Bytes;

/// Seconds for types of weights that this machine has never computed with.
const PROBING: Duration = Duration::from_secs(1);

/// What this machine has for these models, looked at once.
pub(crate) struct Here {
    speeds: quick::Speeds,
    memory: Bytes,
}

impl Here {
    /// How fast it computes with the weights of `models`, and how much of them it has room for.
    pub(crate) fn of<'a>(models: impl Iterator<Item = &'a Facts>) -> Here {
        let machine = probe::machine();
        let memory = machine.ram.saturating_sub(machine.reserve);
        Here { speeds: quick::Speeds::of(&kinds(models), PROBING), memory }
    }

    /// How one of them, the model in `path`, would run.
    pub(crate) fn outlook(&self, facts: &Facts, path: &Path) -> Outlook {
        let memory = self.memory;
        let compute = self.speeds.mixed(facts.types.iter().map(|t| (t.ty, Bytes(t.bytes))));
        let without = facts.outlook(&Room { memory, disk: None }, compute);
        let disk = match without.how {
            How::StreamsFromDisk => quick::disk_of(path),
            How::Fits | How::TooLarge => None,
        };
        facts.outlook(&Room { memory, disk }, compute)
    }
}

/// `fits, 12 tokens/s`.
pub(crate) fn words(outlook: &Outlook) -> String {
    let how = match outlook.how {
        How::Fits => "fits",
        How::StreamsFromDisk => "streams",
        How::TooLarge => return "too large".to_owned(),
    };
    match outlook.tokens_per_second {
        Some(rate) if rate >= 9.95 => format!("{how}, {rate:.0} tokens/s"),
        Some(rate) if rate >= 0.995 => format!("{how}, {rate:.1} tokens/s"),
        Some(rate) => format!("{how}, {rate:.2} tokens/s"),
        None => how.to_owned(),
    }
}

/// The types of weights that the models have, those of most models first, each with the shape of the first that has it.
fn kinds<'a>(models: impl Iterator<Item = &'a Facts>) -> Vec<Kind> {
    let mut kinds: BTreeMap<u32, (usize, Kind)> = BTreeMap::new();
    for share in models.flat_map(|facts| &facts.types) {
        let matrix = GgmlType(share.ty).bytes(share.row.saturating_mul(share.rows));
        let Some(matrix) = matrix.filter(|b| *b > Bytes::ZERO) else { continue };
        let (ty, row, rows) = (share.ty, share.row, share.rows);
        let kind = Kind { ty, row, rows, matrix, bytes: Bytes(share.bytes), experts: None };
        kinds.entry(ty).or_insert((0, kind)).0 += 1;
    }
    let mut kinds: Vec<(usize, Kind)> = kinds.into_values().collect();
    kinds.sort_by_key(|(n, _)| std::cmp::Reverse(*n));
    kinds.into_iter().map(|(_, kind)| kind).collect()
}
