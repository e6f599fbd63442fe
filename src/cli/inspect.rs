//! `airrun inspect`: what is in a model file, for people and as JSON. It reads headers only, and loads nothing; of a mixture it says
//! how it would run here, too, because its size does not tell that.

use std::io::Write;

use anyhow::Context;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde_json::{Map, Value as Json, json};

use super::args::InspectArgs;
use super::here::{self, Here};
use crate::gguf::{Array, Block, Experts, Index, Place, TensorInfo, Value, printable};
use crate::models::{Facts, Outlook};
use crate::units::Bytes;

/// Arrays up to this length are in the JSON in full: those with one value per block are,
/// vocabularies are not.
const MAX_JSON_ARRAY: usize = 1024;

/// Prints what `index` says to `out`. A model that cannot be run is shown all the same, and then
/// refused.
///
/// # Errors
///
/// A closed `out`, or what [`Index::check_model`] finds.
pub(crate) fn run(index: &Index, args: &InspectArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    if args.json {
        serde_json::to_writer_pretty(&mut *out, &describe(index))
            .map_err(std::io::Error::from)
            .context("cannot write the JSON")?;
        writeln!(out)?;
    } else {
        print_table(out, &summary(index))?;
        if args.blocks {
            writeln!(out)?;
            print_table(out, &block_table(index))?;
        }
        if args.tensors {
            writeln!(out)?;
            print_table(out, &tensor_table(index))?;
        }
    }
    out.flush()?;
    Ok(index.check_model()?)
}

/// Prints a table without the blanks that pad its first and last columns.
fn print_table(out: &mut dyn Write, table: &Table) -> std::io::Result<()> {
    let mut lines = table.lines();
    lines.try_for_each(|l| writeln!(out, "{}", l.strip_prefix(' ').unwrap_or(&l).trim_end()))
}

/// An empty table without lines, as wide as its content.
fn bare_table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table
}

/// The table that is always printed: one fact per line.
fn summary(index: &Index) -> Table {
    let mut table = bare_table();
    let mut fact = |name: &str, value: String| {
        table.add_row([name, value.as_str()]);
    };
    fact("name", printable(index.name().as_bytes()));
    fact("architecture", index.architecture().to_owned());
    fact("parameters", parameters(index.parameters()));
    fact("quantisation", index.file_type_name());
    let context = index.context_length();
    fact("context", context.map_or("not said".to_owned(), |n| format!("{n} tokens")));
    fact("blocks", blocks(index));
    if !index.heads.is_empty() {
        fact("heads", heads(index));
    }
    if let Some(n) = index.arch_uint("expert_count").filter(|&n| n > 0) {
        let used = index.arch_uint("expert_used_count");
        let of_token = |u: u64| format!("{n}, {u} used per token: {}", bytes_per_token(index, u));
        fact("experts", used.map_or(format!("{n}"), of_token));
        if let Some(outlook) = mixture_here(index) {
            let found =
                |hits: f64| format!(", {:.0} % of a token's experts found in memory", hits * 100.0);
            let hits = outlook.hits.map_or(String::new(), found);
            fact("here", format!("{}{hits} (`airrun plan` measures)", here::words(&outlook)));
        }
    }
    for place in [Place::Embedding, Place::Output] {
        fact(&place.to_string(), index.bytes_of(place).to_string());
    }
    if let Some((place, len)) = index.largest_unit() {
        fact("largest unit", format!("{place}, {len}"));
    }
    fact("weights", index.bytes().to_string());
    fact("tokenizer", tokenizer(index));
    fact("template", index.chat_template().map_or("none".to_owned(), template));
    for file in &index.files {
        let header = Bytes(file.data_offset);
        fact("file", format!("{} ({}, header {header})", file.path.display(), file.len));
    }
    table
}

/// The experts that one token computes with. (bytes)
fn bytes_per_token(index: &Index, used: u64) -> Bytes {
    let read = |e: Experts| e.each * used.min(e.count);
    index.tensors.iter().filter_map(|t| index.experts(t)).map(read).sum()
}

/// How a mixture that can be loaded would run on this machine.
fn mixture_here(index: &Index) -> Option<Outlook> {
    let path = &index.files.first()?.path;
    let is_mixture = index.tensors.iter().any(|tensor| index.experts(tensor).is_some());
    let facts = is_mixture.then(|| Facts::of_index(index))?;
    facts.refused.is_none().then(|| Here::of([&facts].into_iter()).outlook(&facts, path))
}

/// `32, 118 MiB each`, or the range of their sizes.
fn blocks(index: &Index) -> String {
    let sizes = || index.blocks.iter().map(|b| b.len);
    match (sizes().min(), sizes().max()) {
        (Some(least), Some(most)) if least == most => {
            format!("{}, {most} each", index.blocks.len())
        }
        (Some(least), Some(most)) => format!("{}, {least} to {most} each", index.blocks.len()),
        _ => "none".to_owned(),
    }
}

/// `7.24 B`, `6.1 M`: three digits and the letter that people use.
#[expect(clippy::cast_precision_loss, reason = "printed with three digits")]
pub(crate) fn parameters(n: u64) -> String {
    let (value, letter) = match n {
        0..1_000 => return n.to_string(),
        1_000..1_000_000 => (n as f64 / 1e3, "K"),
        1_000_000..1_000_000_000 => (n as f64 / 1e6, "M"),
        _ => (n as f64 / 1e9, "B"),
    };
    let digits = match value {
        v if v < 10.0 => 2,
        v if v < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {letter}")
}

fn tokenizer(index: &Index) -> String {
    let Some(t) = index.tokenizer() else { return "none".to_owned() };
    let pre = t.pre.map_or(String::new(), |p| format!(" ({})", printable(p.as_bytes())));
    format!("{}{pre}, {} tokens", printable(t.model.as_bytes()), t.n_tokens)
}

/// The length and the first line of a chat template.
fn template(text: &str) -> String {
    let line = text.lines().find(|l| !l.trim().is_empty()).unwrap_or_default();
    format!("{} characters: {}", text.chars().count(), printable(line.trim().as_bytes()))
}

/// Heads that guess tokens ahead, and whether they can.
fn heads(index: &Index) -> String {
    let (n, bytes) = (index.heads.len(), index.head_bytes());
    match index.check_heads_usable() {
        Ok(()) => format!("{n} for drafts, {bytes}, loaded only for --draft mtp or auto"),
        Err(why) => format!("{n}, {bytes}, not used: {why}"),
    }
}

/// One line per block.
fn block_table(index: &Index) -> Table {
    let mut table = bare_table();
    table.set_header(["block", "tensors", "bytes", "", "types"]);
    for block in &index.blocks {
        table.add_row([
            block.place().to_string(),
            block.tensors.len().to_string(),
            block.len.0.to_string(),
            block.len.to_string(),
            types(index, block).join(" "),
        ]);
    }
    align_right(&mut table, &[1, 2, 3]);
    table
}

/// The tensor types of a block, each once, in the order of their numbers.
fn types(index: &Index, block: &Block) -> Vec<String> {
    let mut types: Vec<_> = block.tensors.iter().map(|&i| index.tensors[i].ty).collect();
    types.sort_unstable();
    types.dedup();
    types.iter().map(ToString::to_string).collect()
}

/// One line per tensor, in file order.
fn tensor_table(index: &Index) -> Table {
    let mut table = bare_table();
    table.set_header(["tensor", "type", "shape", "bytes", "file", "offset"]);
    for t in &index.tensors {
        table.add_row([
            printable(t.name.as_bytes()),
            t.ty.to_string(),
            shape(t),
            t.len.0.to_string(),
            (t.file + 1).to_string(),
            t.offset.to_string(),
        ]);
    }
    align_right(&mut table, &[3, 4, 5]);
    table
}

fn shape(t: &TensorInfo) -> String {
    t.shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(" x ")
}

fn align_right(table: &mut Table, columns: &[usize]) {
    for &i in columns {
        if let Some(column) = table.column_mut(i) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

/// Everything about a model as JSON.
fn describe(index: &Index) -> Json {
    let largest = |(place, len): (Place, Bytes)| json!({"place": place.to_string(), "bytes": len});
    json!({
        "name": index.name(),
        "architecture": index.architecture(),
        "parameters": index.parameters(),
        "quantisation": index.file_type_name(),
        "context_length": index.context_length(),
        "block_count": index.blocks.len(),
        "bytes": index.bytes(),
        "embedding_bytes": index.bytes_of(Place::Embedding),
        "output_bytes": index.bytes_of(Place::Output),
        "largest_unit": index.largest_unit().map(largest),
        "expert_count": index.arch_uint("expert_count"),
        "expert_used_count": index.arch_uint("expert_used_count"),
        "expert_bytes_per_token":
            index.arch_uint("expert_used_count").map(|used| bytes_per_token(index, used)),
        "here": mixture_here(index),
        "tokenizer": index.tokenizer().map(|t| json!({
            "model": t.model,
            "pre": t.pre,
            "tokens": t.n_tokens,
        })),
        "chat_template": index.chat_template(),
        "files": index.files.iter().map(|f| json!({
            "path": f.path.to_string_lossy(),
            "bytes": f.len,
            "data_offset": f.data_offset,
        })).collect::<Vec<_>>(),
        "blocks": index.blocks.iter().map(|b| json!({
            "block": b.place().to_string(),
            "bytes": b.len,
            "tensors": b.tensors.len(),
            "types": types(index, b),
        })).collect::<Vec<_>>(),
        "tensors": index.tensors.iter().map(|t| describe_tensor(index, t)).collect::<Vec<_>>(),
        "metadata": metadata(index),
    })
}

fn describe_tensor(index: &Index, t: &TensorInfo) -> Json {
    let experts = index.experts(t).map(|e| json!({"count": e.count, "bytes_each": e.each}));
    json!({
        "name": t.name,
        "type": t.ty.to_string(),
        "shape": t.shape,
        "bytes": t.len,
        "file": t.file,
        "offset": t.offset,
        "place": t.place.to_string(),
        "experts": experts,
    })
}

/// All keys; of long arrays only what they are.
fn metadata(index: &Index) -> Map<String, Json> {
    let entries = index.metadata.entries.iter();
    entries.map(|(key, value)| (key.clone(), describe_value(value))).collect()
}

fn describe_value(value: &Value) -> Json {
    match value {
        Value::Uint(n) => json!(n),
        Value::Int(n) => json!(n),
        Value::Float(x) => json!(x),
        Value::Bool(b) => json!(b),
        Value::Str(text) => json!(text),
        Value::Array(array) => describe_array(array),
    }
}

fn describe_array(array: &Array) -> Json {
    if array.len() > MAX_JSON_ARRAY {
        return json!({"array_of": array.element().to_string(), "length": array.len()});
    }
    array.iter().map(|v| describe_value(&v)).collect()
}
