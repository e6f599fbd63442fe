//! Which experts were used: written to a file, and played again to pools of other sizes with other rules.

use std::fs;
use std::path::Path;

use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};

use crate::cli::exit::{ExitStatus, Failure};
use crate::cli::printer::Printer;
use crate::engine::Session;
use crate::engine::experts::Decay;
use crate::engine::experts::simulate::{Policy, Routes, hits};

/// What the file says it is.
const FORMAT: &str = "airrun routes 1";

/// Experts of a block at most; more than any model has.
const MAX_EXPERTS: usize = 1 << 16;

/// Shares of the experts that pools of keep, unless the file says how many there are.
const SHARES: [f64; 7] = [0.0625, 0.125, 0.25, 0.35, 0.5, 0.75, 1.0];

/// A file of routes.
#[derive(Serialize, Deserialize)]
struct RouteFile {
    format: String,
    blocks: Vec<BlockRoutes>,
}

/// The routes of one block.
#[derive(Serialize, Deserialize)]
struct BlockRoutes {
    name: String,
    /// How many experts it has.
    count: usize,
    /// For each pass, the experts that it used.
    routes: Routes,
}

/// Uses that found the expert there, as a share, by a rule.
#[derive(Serialize)]
struct Line {
    share: f64,
    slots: usize,
    lru: f64,
    airrun: f64,
    best: f64,
}

/// Ends the record of `session` and writes it to `path`, if that is wanted.
pub(super) fn finish(
    session: &Session,
    path: Option<&Path>,
    printer: &Printer,
) -> anyhow::Result<()> {
    let monitor = session.monitor();
    let Some(watch) = monitor.experts() else {
        if path.is_some() {
            printer.warn("no experts are brought one by one here: there are no routes to write");
        }
        return Ok(());
    };
    let Some(record) = watch.take_record() else { return Ok(()) };
    let Some(path) = path else { return Ok(()) };
    let block = |(view, routes): (_, _)| {
        let view: crate::engine::experts::BlockView = view;
        BlockRoutes { name: view.name, count: view.experts.len(), routes }
    };
    let blocks = watch.blocks().into_iter().zip(record).map(block).collect();
    let file = RouteFile { format: FORMAT.to_owned(), blocks };
    fs::write(path, serde_json::to_string(&file)?)
        .map_err(|e| Failure::error(format!("cannot write '{}': {e}", path.display()), ""))?;
    Ok(())
}

/// Plays the routes of a file to pools of several sizes and prints what each would have hit.
pub(super) fn simulate(path: &Path, json: bool, printer: &Printer) -> anyhow::Result<ExitStatus> {
    let file = read(path)?;
    let count = file.blocks.iter().map(|b| b.count).max().unwrap_or(0);
    let longest = file.blocks.iter().flat_map(|b| &b.routes).map(Vec::len).max().unwrap_or(0);
    let sizes = SHARES.map(|share| slots(share, count));
    let lines = sizes.into_iter().filter(|&n| n >= longest.max(1)).map(|n| line(&file, n, count));
    let lines: Vec<Line> = lines.collect();
    if json {
        for line in &lines {
            printer.data(&format!("{}\n", serde_json::to_string(line)?))?;
        }
        return Ok(ExitStatus::Ok);
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["experts kept", "of each block", "LRU", "airrun", "best", "of best"]);
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    for line in &lines {
        let of_best = line.airrun / line.best.max(1e-9);
        let row = [line.share, line.lru, line.airrun, line.best, of_best].map(percent);
        let [share, lru, ours, best, of_best] = row;
        table.add_row([share, line.slots.to_string(), lru, ours, best, of_best]);
    }
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    printer.data(&format!("{table}\n"))?;
    Ok(ExitStatus::Ok)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a share of a small number"
)]
fn slots(share: f64, count: usize) -> usize {
    (count as f64 * share).round() as usize
}

#[expect(clippy::cast_precision_loss, reason = "shares")]
fn line(file: &RouteFile, slots: usize, count: usize) -> Line {
    let rate = |policy| {
        let of_block = |block: &BlockRoutes| hits(&block.routes, slots, policy);
        let (uses, hits) =
            file.blocks.iter().map(of_block).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
        hits as f64 / uses.max(1) as f64
    };
    Line {
        share: slots as f64 / count.max(1) as f64,
        slots,
        lru: rate(Policy::Worth(Decay::LRU)),
        airrun: rate(Policy::Worth(Decay::default())),
        best: rate(Policy::Best),
    }
}

/// Reads a file of routes; one that makes no sense is refused.
fn read(path: &Path) -> anyhow::Result<RouteFile> {
    let name = path.display();
    let text = fs::read_to_string(path)
        .map_err(|e| Failure::error(format!("cannot read '{name}': {e}"), ""))?;
    let refuse = |why: String| {
        let hint = "such files are written by `airrun bench MODEL --record-routes FILE`";
        Failure::error(format!("'{name}' is no file of routes: {why}"), hint)
    };
    let file: RouteFile = serde_json::from_str(&text).map_err(|e| refuse(e.to_string()))?;
    if file.format != FORMAT {
        return Err(refuse(format!("its format is '{}'", file.format)));
    }
    for block in &file.blocks {
        let wrong = block.routes.iter().flatten().find(|&&e| e as usize >= block.count);
        if let Some(expert) = wrong {
            return Err(refuse(format!("{} has no expert {expert}", block.name)));
        }
        if block.count > MAX_EXPERTS {
            return Err(refuse(format!("{} has {} experts", block.name, block.count)));
        }
    }
    Ok(file)
}
