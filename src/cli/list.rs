//! `airrun list`: the models on this machine, whoever downloaded them, and how each would run here. It reads headers, and loads
//! nothing.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde_json::{Value, json};
use unicode_width::UnicodeWidthStr;

use crate::cli::args::ListArgs;
use crate::cli::exit::ExitStatus;
use crate::cli::here::{self, Here};
use crate::cli::inspect::parameters;
use crate::cli::printer::Printer;
use crate::cli::progress::{Status, Watched};
use crate::engine;
use crate::gguf::{Purpose, printable};
use crate::models::{Catalog, Facts, Library, Model, Outlook};
use crate::units::Bytes;

/// A model and what is known of it.
struct Row<'a> {
    model: &'a Model,
    facts: Facts,
    /// `None` for what writes no text.
    outlook: Option<Outlook>,
}

/// Lists what is here.
pub(crate) fn run(args: &ListArgs, printer: &Printer) -> anyhow::Result<ExitStatus> {
    let status = Status::start(printer, Watched::Step("looking for models".to_owned()));
    let catalog = Catalog::here();
    let read = Library::open().facts(&catalog.models);
    let mut rows = Vec::new();
    let mut notes: Vec<String> =
        catalog.notes.iter().map(|n| format!("{}: {}", n.path.display(), n.what)).collect();
    for (model, facts) in catalog.models.iter().zip(read) {
        match facts {
            Ok(mut facts) => {
                if !can_be_known(&facts) {
                    let name = printable(facts.architecture.as_bytes());
                    facts.refused = Some(format!("libllama knows no architecture '{name}'"));
                }
                notes.extend(
                    facts.refused.iter().map(|why| format!("{}: {why}", model.path.display())),
                );
                rows.push(Row { model, facts, outlook: None });
            }
            Err(why) => notes.push(why),
        }
    }
    let n_all = rows.len();
    let n_refused = rows.iter().filter(|row| row.facts.refused.is_some()).count();
    if !args.all {
        rows.retain(|r| r.facts.purpose == Some(Purpose::Text));
    }
    drop(status);
    if args.names {
        printer.data(&names(&rows))?;
        return Ok(ExitStatus::Ok);
    }
    let status = Status::start(printer, Watched::Step("measuring this machine".to_owned()));
    let texts =
        |row: &Row<'_>| row.facts.purpose == Some(Purpose::Text) && row.facts.refused.is_none();
    let here = Here::of(rows.iter().map(|row| &row.facts));
    for row in rows.iter_mut().filter(|row| texts(row)) {
        row.outlook = Some(here.outlook(&row.facts, &row.model.path));
    }
    drop(status);
    for note in &notes {
        printer.detail(note);
    }
    let text = match args.json {
        true => {
            serde_json::to_string_pretty(&rows.iter().map(Row::json).collect::<Vec<_>>())? + "\n"
        }
        false => table(&rows, printer.columns()),
    };
    printer.data(&text)?;
    if !args.json {
        if !rows.is_empty() {
            let size: Bytes = rows.iter().map(|row| row.model.size).sum();
            let n = if rows.len() == 1 {
                "1 model".to_owned()
            } else {
                format!("{} models", rows.len())
            };
            printer.note(format_args!("{n}, {size}; --json tells where they are"));
        }
        remarks(printer, [rows.len(), n_all, n_refused], notes.len() - n_refused);
    }
    Ok(ExitStatus::Ok)
}

/// What the table leaves unsaid.
fn remarks(printer: &Printer, [n_shown, n_all, n_refused]: [usize; 3], n_notes: usize) {
    if n_all == 0 {
        printer.dim("no models were found; `airrun pull ORG/REPO` downloads one");
    }
    if n_all > n_shown {
        printer
            .dim(format!("{} that write no text are left out; --all shows them", n_all - n_shown));
    }
    if n_refused > 0 {
        printer.dim(format!("{n_refused} cannot be loaded; -v tells why"));
    }
    if n_notes > 0 {
        printer.detail(format!("{n_notes} were passed over"));
    }
}

/// Whether the architecture has a name that libllama knows; a projector or an adapter needs none.
fn can_be_known(facts: &Facts) -> bool {
    facts.purpose != Some(Purpose::Text) || engine::knows_architecture(&facts.architecture)
}

/// The names as they may be typed. Programs read them by lines.
fn names(rows: &[Row]) -> String {
    let names = rows.iter().map(|row| row.model.name.as_str());
    names.filter(|name| !name.contains(char::is_control)).flat_map(|name| [name, "\n"]).collect()
}

/// The columns of the table, and the order in which they go where the terminal is too narrow for all.
const COLUMNS: [&str; 7] = ["NAME", "ARCHITECTURE", "PARAMETERS", "QUANT", "SIZE", "FROM", "HERE"];
const DROPPED: [usize; 3] = [5, 1, 2];

/// The least columns of a name that is cut.
const LEAST_NAME: usize = 16;

/// The models as a table of at most so many columns, if that is known.
fn table(rows: &[Row], columns: Option<usize>) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut left: Vec<usize> = (0..COLUMNS.len()).collect();
    let mut text = lay_out(rows, &left, usize::MAX);
    let Some(columns) = columns else { return text };
    let widest = |text: &str| text.lines().map(UnicodeWidthStr::width).max().unwrap_or(0);
    for dropped in DROPPED {
        if widest(&text) <= columns {
            return text;
        }
        left.retain(|&column| column != dropped);
        text = lay_out(rows, &left, usize::MAX);
    }
    let over = widest(&text).saturating_sub(columns);
    let name = rows.iter().map(|row| row.model.name.width()).max().unwrap_or(0);
    if over == 0 { text } else { lay_out(rows, &left, name.saturating_sub(over).max(LEAST_NAME)) }
}

/// The table with these of [`COLUMNS`], and names of at most so many columns.
fn lay_out(rows: &[Row], columns: &[usize], name: usize) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(columns.iter().map(|&column| COLUMNS[column]));
    for row in rows {
        let Row { model, facts, .. } = row;
        let cells = [
            shortened(&printable(model.name.as_bytes()), name),
            facts.architecture.clone(),
            parameters(facts.parameters),
            facts.quantisation.clone(),
            model.size.to_string(),
            model.origin.to_string(),
            row.here(),
        ];
        table.add_row(columns.iter().map(|&column| cells[column].clone()));
    }
    for (at, column) in columns.iter().enumerate() {
        if let (2 | 4, Some(column)) = (column, table.column_mut(at)) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let line = |l: String| l.strip_prefix(' ').unwrap_or(&l).trim_end().to_owned() + "\n";
    table.lines().map(line).collect()
}

/// A name of at most so many columns, its end kept: that tells quantisations apart.
fn shortened(name: &str, columns: usize) -> String {
    if name.width() <= columns {
        return name.to_owned();
    }
    let half = columns.saturating_sub(3) / 2;
    let begin: String = name.chars().take(half).collect();
    let end: Vec<char> = name.chars().rev().take(columns.saturating_sub(3 + half)).collect();
    begin + "..." + &end.into_iter().rev().collect::<String>()
}

impl Row<'_> {
    /// `fits, 12 tokens/s`.
    fn here(&self) -> String {
        if self.facts.refused.is_some() {
            return "cannot be loaded".to_owned();
        }
        let Some(outlook) = &self.outlook else {
            let what = self.facts.purpose.map(|p| p.not_for_text().unwrap_or_default());
            return what.unwrap_or("a vocabulary, or a part of a model").to_owned();
        };
        here::words(outlook)
    }

    fn json(&self) -> Value {
        let Row { model, facts, outlook } = self;
        json!({
            "name": model.name,
            "aliases": model.aliases,
            "path": model.path.display().to_string(),
            "origin": model.origin,
            "size": model.size,
            "modified": model.modified,
            "title": facts.title,
            "architecture": facts.architecture,
            "parameters": facts.parameters,
            "quantisation": facts.quantisation,
            "context": facts.context,
            "purpose": facts.purpose,
            "refused": facts.refused,
            "how": outlook.map(|o| o.how),
            "tokens_per_second": outlook.and_then(|o| o.tokens_per_second),
            "expert_hits": outlook.and_then(|o| o.hits),
        })
    }
}
