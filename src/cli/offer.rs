//! What `airrun serve` offers of a model, alone or among others: its names, what holds where a request says nothing, and the memory that
//! requests get.

use crate::cli::args::serve::ServeArgs;
use crate::cli::resolve::{self, Chosen};
use crate::cli::{sampling, talk};
use crate::probe;
use crate::serve::Preset;
use crate::units::{Bytes, MIB};

/// The share of the RAM that is set aside for requests while they are read, and its bounds.
const REQUESTS_SHARE: u64 = 16;
const LEAST_FOR_REQUESTS: Bytes = Bytes(2 * MIB.0);
const MOST_FOR_REQUESTS: Bytes = Bytes(256 * MIB.0);

/// What is set aside for requests while they are read.
pub(crate) fn aside(args: &ServeArgs) -> Bytes {
    let ram = resolve::load_options(&args.load).ram.unwrap_or_else(probe::available_memory);
    Bytes(ram.0 / REQUESTS_SHARE).clamp(LEAST_FOR_REQUESTS, MOST_FOR_REQUESTS)
}

/// The names by which clients may ask for the model, and what holds where they say nothing: what the user says, else what came
/// with the model.
pub(crate) fn preset(args: &ServeArgs, chosen: &Chosen) -> Preset {
    // With several models, what was typed may mean another one.
    let typed = if args.has_many() { "".into() } else { args.load.model.to_string_lossy() };
    let own =
        |name: &String| name.strip_suffix(":latest").unwrap_or(name) == typed || *name == typed;
    // Of its names, the one that was typed.
    let known = match chosen.names.iter().any(own) {
        true => Some(typed.to_string()),
        false => chosen.names.first().cloned(),
    };
    let file = chosen.index.files.first().map(|file| &file.path);
    let parts = file.into_iter().flat_map(|path| [path.file_name(), path.file_stem()]).flatten();
    let parts = parts.map(|part| part.to_string_lossy().into_owned());
    let kept = chosen.settings.clone();
    let usual = &args.usual;
    Preset {
        name: args.name.clone().or(known),
        aliases: chosen.names.iter().cloned().chain([typed.to_string()]).chain(parts).collect(),
        system: args.system.clone().or(kept.system),
        messages: kept.messages,
        stops: kept.stop,
        max_tokens: usual.max_tokens.or(kept.max_tokens),
        temp: usual.temp.or(kept.temp),
        top_k: usual.top_k.or(kept.top_k),
        top_p: usual.top_p.or(kept.top_p),
        min_p: usual.min_p.or(kept.min_p),
        repeat_penalty: usual.repeat_penalty.or(kept.repeat_penalty),
        repeat_last_n: sampling::recent(&args.more_sampling).or(kept.repeat_last_n),
        seed: usual.seed.or(kept.seed),
        others: sampling::others(&args.more_sampling),
        thinking: talk::thinking(usual),
    }
}
