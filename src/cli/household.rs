//! `airrun serve` with several models: which there are, what they may take together, and how each is loaded.

use std::collections::HashSet;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use crate::cli::args::Budget;
use crate::cli::args::serve::ServeArgs;
use crate::cli::exit::Failure;
use crate::cli::offer::{aside, preset};
use crate::cli::printer::Printer;
use crate::cli::resolve::{self, Chosen};
use crate::cli::talk;
use crate::engine::{LoadOptions, planning};
use crate::gguf::Purpose;
use crate::models::{Catalog, Kind, Place};
use crate::serve::{Household, Offer};
use crate::units::Bytes;

const MINUTE: u64 = 60;

/// The models that `args` name, or all of a place.
pub(crate) fn household(args: &ServeArgs, printer: &Printer) -> anyhow::Result<Household> {
    let mut chosen = Vec::new();
    for name in args.named() {
        chosen.push(resolve::model(name)?);
    }
    if let Some(place) = args.place() {
        chosen.extend(all_of(place, printer));
    }
    let mut seen = HashSet::new();
    chosen.retain(|model| {
        let file = model.index.files.first().map(|file| &file.path);
        seen.insert(file.map(|path| fs::canonicalize(path).unwrap_or_else(|_| path.clone())))
    });
    if chosen.is_empty() {
        let hint = "name some (airrun serve MODEL ...), or download one (airrun pull org/repo)";
        return Err(Failure::error("there are no models to be served", hint));
    }
    let options = LoadOptions {
        sequences: args.parallel,
        embedding: true,
        alone: false,
        aside: aside(args),
        ..resolve::load_options(&args.load)
    };
    let budget = match args.load.ram {
        Budget::Size(bytes) => bytes,
        Budget::Auto => budget(&chosen, &options)?,
    };
    let offers = chosen.into_iter().map(|chosen| offer(args, chosen, &options, *printer));
    let idle = Duration::from_secs(u64::from(args.idle) * MINUTE);
    Ok(Household { offers: offers.collect(), budget, idle })
}

/// The models of a directory, or of this machine. What cannot be read, and what neither writes nor makes vectors, is passed over.
fn all_of(place: &std::path::Path, printer: &Printer) -> Vec<Chosen> {
    let catalog = match place.to_str() {
        Some("all") => Catalog::here(),
        _ => Catalog::scan(&[Place { kind: Kind::Named, dir: place.to_owned() }]),
    };
    let mut all = Vec::new();
    for model in catalog.models {
        match resolve::open(model.found()) {
            Ok(chosen) if matches!(chosen.index.purpose(), Purpose::Text | Purpose::Embedding) => {
                all.push(chosen);
            }
            Ok(_) => {
                printer.detail(format_args!("'{}' is passed over: it writes no text", model.name))
            }
            Err(error) => {
                printer.detail(format_args!("'{}' is passed over: {error:#}", model.name))
            }
        }
    }
    all
}

/// What may be used where nobody says it: as much as the first model that can be planned would be given.
fn budget(chosen: &[Chosen], options: &LoadOptions) -> anyhow::Result<Bytes> {
    let mut why = None;
    for model in chosen {
        match planning::plan(&Arc::new(model.index.clone()), options, false) {
            Ok(planned) => return Ok(planned.plan.memory.budget),
            Err(error) => why = Some(error),
        }
    }
    Err(why.map_or_else(|| anyhow::anyhow!("there are no models"), Into::into))
}

fn offer(args: &ServeArgs, chosen: Chosen, options: &LoadOptions, printer: Printer) -> Offer {
    let preset = preset(args, &chosen);
    let index = Arc::new(chosen.index.clone());
    let need = {
        let (index, options) = (index.clone(), chosen.complete(options.clone()));
        move |ram| {
            let options = LoadOptions { ram: Some(ram), ..options.clone() };
            Some(planning::plan(&index, &options, false).ok()?.plan.memory.peak())
        }
    };
    let open = {
        let options = options.clone();
        move |ram| {
            let options = LoadOptions { ram: Some(ram), ..options.clone() };
            let engine = talk::load_chosen(&chosen, options, &printer)?;
            engine.notes().iter().for_each(|note| printer.warn(note));
            Ok(engine)
        }
    };
    Offer { preset, index, need: Arc::new(need), open: Arc::new(open) }
}
