//! A plan for people, and the same as JSON. It knows neither terminals nor colours' names: the look is handed in.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Estimate, Memory, Plan, Rates, Speed, Tier};
use crate::units::Bytes;

/// Everything that is to be shown.
#[derive(Clone, Debug)]
pub struct Report<'a> {
    /// The model's name.
    pub name: &'a str,
    /// Bytes of all its tensors.
    pub weights: Bytes,
    /// Where everything lives.
    pub plan: &'a Plan,
    /// What was measured.
    pub rates: &'a Rates,
    /// What it will cost.
    pub estimate: &'a Estimate,
    /// What more memory would bring, if anything.
    pub advice: Option<Advice>,
}

/// What would help most.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Advice {
    /// RAM beyond what there is.
    pub more_ram: Bytes,
    /// Tokens per second of generation with it.
    pub tokens_per_second: f64,
}

/// How the picture of the blocks is drawn.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// A resident block, and a streamed one.
    pub blocks: [char; 2],
    /// What is printed before a row of resident blocks, before a row of streamed ones, and after each.
    pub paint: [&'static str; 3],
}

/// With block characters.
pub const UNICODE: [char; 2] = ['█', '░'];
/// With letters that every terminal has.
pub const ASCII: [char; 2] = ['#', '.'];

/// Blocks in a row of the picture.
const ROW: usize = 60;

impl Report<'_> {
    /// For people: lines of at most 80 columns.
    pub fn text(&self, look: Look) -> String {
        let Report { plan, rates, estimate, .. } = self;
        let mut out = String::new();
        let mut line = |name: &str, text: String| {
            let _ = writeln!(out, "{name:<13} {text}");
        };
        let n = plan.blocks.len();
        line("model", format!("{}: {n} blocks, {} of weights", self.name, self.weights));
        for (i, row) in picture(plan, look).into_iter().enumerate() {
            line(if i == 0 { "blocks" } else { "" }, row);
        }
        line("", legend(plan, look));
        let memory = plan.memory;
        let whose = if plan.promised { "--ram" } else { "what is free here" };
        line("RAM", format!("{} of {} ({whose})", memory.peak(), memory.budget));
        for (name, bytes, what) in self.shares() {
            line(&format!("  {name}"), format!("{:<9} {what}", bytes.to_string()));
        }
        if !plan.streamed.is_empty() {
            line("disk", format!("{} read in each pass, at {}", plan.streamed_bytes(), rates.disk));
        }
        line(
            "generation",
            format!(
                "{}, held back by {}",
                speed(&estimate.generation),
                estimate.generation.bottleneck
            ),
        );
        let prompt = &estimate.prompt;
        let passes =
            if prompt.passes == 1 { "1 pass" } else { &format!("{} passes", prompt.passes) };
        line("prompt", format!("{}, held back by {}", speed(prompt), prompt.bottleneck));
        line("", format!("{} tokens in {passes}: {}", prompt.tokens, seconds(prompt.seconds)));
        let load = seconds(estimate.load_seconds);
        line(
            "first token",
            format!("after {}, {load} of it loading", seconds(estimate.first_token_seconds)),
        );
        if let Some(advice) = self.advice {
            let rate = tokens_per_second(advice.tokens_per_second);
            line("faster", format!("with {} more RAM: {rate}", advice.more_ram));
        }
        out
    }

    /// The parts of the memory, with what they are for.
    fn shares(&self) -> Vec<(&'static str, Bytes, String)> {
        let Plan { memory, slot, n_slots, n_ctx, n_ubatch, .. } = self.plan;
        let Memory { process, outside, blocks, slots, context, loading, .. } = *memory;
        let mut shares = vec![
            ("process", process, "the program and the vocabulary".to_owned()),
            ("outside", outside, "embedding and output".to_owned()),
            ("resident", blocks, format!("{} blocks", self.plan.count(Tier::Resident))),
        ];
        if *n_slots > 0 {
            shares.push(("slots", slots, format!("{n_slots} of {slot}")));
        }
        let what = format!("{n_ctx} tokens, {n_ubatch} in a pass");
        shares.push(("context", context, what));
        if loading > context {
            shares.push(("loading", loading, "while the context is not in use yet".to_owned()));
        }
        shares
    }

    /// All of it.
    pub fn json(&self) -> Value {
        let plan = self.plan;
        let bytes =
            |tier| plan.blocks.iter().filter(|b| b.tier == tier).map(|b| b.len).sum::<Bytes>();
        let blocks = plan
            .blocks
            .iter()
            .map(|b| json!({ "block": b.place.to_string(), "tier": b.tier, "bytes": b.len }));
        let mut memory = json!(plan.memory);
        memory["peak"] = json!(plan.memory.peak());
        json!({
            "model": self.name,
            "weights": self.weights,
            "blocks": blocks.collect::<Vec<_>>(),
            "resident": { "blocks": plan.count(Tier::Resident), "bytes": bytes(Tier::Resident) },
            "streamed": {
                "blocks": plan.count(Tier::Streamed),
                "bytes": plan.streamed_bytes(),
                "units": plan.streamed.len(),
            },
            "slots": { "count": plan.n_slots, "bytes": plan.slot },
            "ctx": plan.n_ctx,
            "ubatch": plan.n_ubatch,
            "memory": memory,
            "rates": self.rates,
            "estimate": self.estimate,
            "advice": self.advice,
        })
    }
}

/// The bar of blocks, in rows.
fn picture(plan: &Plan, look: Look) -> Vec<String> {
    let row = |blocks: &[super::Placed]| {
        let mut row = String::new();
        for group in blocks.chunk_by(|a, b| a.tier == b.tier) {
            let which = usize::from(group[0].tier == Tier::Streamed);
            row += look.paint[which];
            row.extend(std::iter::repeat_n(look.blocks[which], group.len()));
            row += look.paint[2];
        }
        row
    };
    plan.blocks.chunks(ROW).map(row).collect()
}

/// What the picture's characters stand for.
fn legend(plan: &Plan, look: Look) -> String {
    let item = |tier, which: usize, name| {
        let n = plan.count(tier);
        (n > 0).then(|| {
            format!("{}{}{} {n} {name}", look.paint[which], look.blocks[which], look.paint[2])
        })
    };
    let parts = plan.streamed.len() > plan.count(Tier::Streamed);
    let streamed = if parts {
        format!("streamed from disk in {} parts", plan.streamed.len())
    } else {
        "streamed from disk".to_owned()
    };
    let items = [item(Tier::Resident, 0, "resident in RAM"), item(Tier::Streamed, 1, &streamed)];
    items.into_iter().flatten().collect::<Vec<_>>().join("  ")
}

fn speed(speed: &Speed) -> String {
    tokens_per_second(speed.tokens_per_second)
}

/// Three digits.
fn tokens_per_second(rate: f64) -> String {
    let digits = if rate < 9.995 { 2 } else { usize::from(rate < 99.95) };
    format!("{rate:.digits$} tokens/s")
}

fn seconds(seconds: f64) -> String {
    let digits = if seconds < 9.995 { 2 } else { usize::from(seconds < 99.95) };
    format!("{seconds:.digits$} s")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Cost;
    use crate::plan::estimate::{Touched, estimate};
    use crate::plan::solve::tests::whole_plan;
    use crate::units::{GIB, MIB, Rate};

    #[test]
    fn a_report_reads_like_this() {
        let (index, plan) = whole_plan();
        let cost = Cost { one: Rate(10e9), many: Rate(500e9) };
        let rates =
            Rates { disk: Rate(2e9), resident: cost, streamed: cost, gpu: None, open_seconds: 0.5 };
        let touched = Touched { of_block: 1.0, of_ffn: 1.0, output: MIB * 100 };
        let estimate = estimate(&plan, &rates, touched, 512);
        let advice = Some(Advice { more_ram: GIB * 2, tokens_per_second: 2.345 });
        let report = Report {
            name: "forty",
            weights: index.bytes(),
            plan: &plan,
            rates: &rates,
            estimate: &estimate,
            advice,
        };
        let look = Look { blocks: ASCII, paint: [""; 3] };
        let want = "\
model         forty: 40 blocks, 4.10 GiB of weights
blocks        #.#.#.#.#.#.#.#.#.#.#.#.#.#.#.#.#.#.#.#.
              # 20 resident in RAM  . 20 streamed from disk
RAM           2.55 GiB of 2.55 GiB (--ram)
  process     50.0 MiB  the program and the vocabulary
  outside     200 MiB   embedding and output
  resident    1.95 GiB  20 blocks
  slots       200 MiB   2 of 100 MiB
  context     156 MiB   4096 tokens, 512 in a pass
disk          1.95 GiB read in each pass, at 2.00 GB/s
generation    0.95 tokens/s, held back by disk
prompt        119 tokens/s, held back by compute
              512 tokens in 1 pass: 4.31 s
first token   after 5.96 s, 1.65 s of it loading
faster        with 2.00 GiB more RAM: 2.35 tokens/s
";
        assert_eq!(report.text(look), want);
        let json = report.json();
        assert_eq!(json["streamed"]["blocks"], 20);
        assert_eq!(json["blocks"][1]["tier"], "streamed");
        assert_eq!(json["estimate"]["generation"]["bottleneck"], "disk");
        assert_eq!(json["memory"]["peak"], plan.memory.peak().0);
    }
}
