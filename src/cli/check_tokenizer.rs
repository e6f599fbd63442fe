//! `airrun inspect --check-tokenizer`: a tokenizer.json beside the tokenizer of a model's file.

use std::path::Path;
use std::sync::Arc;

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::json;

use crate::cli::exit::ExitStatus;
use crate::cli::printer::Printer;
use crate::engine::compare::{Compared, Comparison, compare};
use crate::gguf::Index;

/// Tokens around a difference that are shown.
const SHOWN: usize = 6;

/// Compares, and fails if they differ.
pub(crate) fn run(
    index: Index,
    file: &Path,
    as_json: bool,
    printer: &Printer,
) -> anyhow::Result<ExitStatus> {
    let comparison = compare(&Arc::new(index), file)?;
    let same = comparison.same();
    let text = match as_json {
        true => {
            let json = json!({"same": same, "comparison": comparison});
            serde_json::to_string_pretty(&json)? + "\n"
        }
        false => report(&comparison),
    };
    printer.data(&text)?;
    Ok(if same { ExitStatus::Ok } else { ExitStatus::Failed })
}

/// A table of the numbers, a table of the texts, and a verdict.
fn report(comparison: &Comparison) -> String {
    let mut numbers = bare(["", "FILE", "TOKENIZER", ""]);
    let mut row = |name: &str, [file, own]: [Option<String>; 2], fine: bool| {
        let shown = |n: Option<String>| n.unwrap_or_else(|| "none".to_owned());
        let mark = if fine { "" } else { "differs" };
        numbers.add_row([name.to_owned(), shown(file), shown(own), mark.to_owned()]);
    };
    let [file, own] = comparison.n_tokens;
    row("tokens", [Some(file.to_string()), Some(own.to_string())], own <= file);
    let merges = comparison.n_merges;
    let comparable = matches!(merges, [Some(_), Some(_)]);
    row("merges", merges.map(|n| n.map(|n| n.to_string())), !comparable || merges[0] == merges[1]);
    let bos = comparison.bos;
    row("before a text", bos.map(|n| n.map(|n| format!("token {n}"))), true);
    if let Some(n) = comparison.differing {
        row("other tokens", [Some(String::new()), Some(n.to_string())], n == 0);
    }
    let mut texts = bare(["TEXT", "FILE", "TOKENIZER", ""]);
    for text in &comparison.texts {
        let count = |tokens: &[i32]| format!("{} tokens", tokens.len());
        texts.add_row([
            text.kind.to_owned(),
            count(&text.file),
            count(&text.own),
            difference(text),
        ]);
    }
    let n_differ = comparison.texts.iter().filter(|t| !t.same()).count();
    let n = comparison.texts.len();
    let verdict = match (comparison.same(), n_differ) {
        (true, _) => format!("the same, for all {n} texts"),
        (false, 0) => format!("not the same, although all {n} texts are cut alike"),
        (false, differ) => format!("not the same: {differ} of {n} texts are cut otherwise"),
    };
    format!("{}\n{}\n{verdict}\n", plain(&numbers), plain(&texts))
}

/// `at 12: 267 201 | 563 9`.
fn difference(text: &Compared) -> String {
    let Some(at) = text.first_difference() else { return String::new() };
    let around = |tokens: &[i32]| {
        let some = tokens.iter().skip(at).take(SHOWN).map(ToString::to_string);
        some.collect::<Vec<_>>().join(" ")
    };
    format!("differs at {at}: {} | {}", around(&text.file), around(&text.own))
}

fn bare(header: [&str; 4]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header);
    table
}

fn plain(table: &Table) -> String {
    let line = |l: String| l.strip_prefix(' ').unwrap_or(&l).trim_end().to_owned() + "\n";
    table.lines().map(line).collect()
}
