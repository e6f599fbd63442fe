//! A plan as lines for people.

use std::fmt::Write as _;

use super::{Foreseen, KINDS, Look, Report, Smaller, Trade};
use crate::plan::{GpuMemory, HeldBy, Memory, Placed, Plan, Speed, Tier, Unit};
use crate::units::Bytes;

/// The widest line. (columns)
const WIDTH: usize = 80;

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
        for row in legend(plan, look) {
            line("", row);
        }
        for (name, text) in self.gpus() {
            line(&name, text);
        }
        let memory = plan.memory;
        let whose = if plan.promised { "--ram" } else { "what is free here" };
        line("RAM", format!("{} of {} ({whose})", memory.peak(), memory.budget));
        for (name, bytes, what) in self.shares() {
            line(&format!("  {name}"), format!("{:<9} {what}", bytes.to_string()));
        }
        if let (Some(beside), false) = (rates.gpu, plan.streamed.is_empty()) {
            let bytes = plan.streamed_bytes();
            line("link", format!("{bytes} brought in each pass, at {}", beside.link));
        }
        if plan.disk_bytes() > Bytes::ZERO {
            let by_expert = plan.experts.is_some();
            let rate = rates.disk_in(if by_expert { plan.n_ubatch } else { 1 });
            line("disk", format!("{} read in each pass, at {rate}", plan.disk_bytes()));
        }
        if let Some(of_experts) = self.of_experts() {
            line("", of_experts);
        }
        line(
            "generation",
            format!(
                "{}, limited by {}",
                speed(&estimate.generation),
                estimate.generation.bottleneck
            ),
        );
        for (i, row) in self.drafted().into_iter().enumerate() {
            line(if i == 0 { "drafts" } else { "" }, row);
        }
        let prompt = &estimate.prompt;
        let passes =
            if prompt.passes == 1 { "1 pass" } else { &format!("{} passes", prompt.passes) };
        line("prompt", format!("{}, limited by {}", speed(prompt), prompt.bottleneck));
        line("", format!("{} tokens in {passes}: {}", prompt.tokens, seconds(prompt.seconds)));
        let load = seconds(estimate.load_seconds);
        line(
            "first token",
            format!("after {}, {load} of it loading", seconds(estimate.first_token_seconds)),
        );
        for (name, text) in self.other_ways() {
            line(name, text);
        }
        out
    }

    /// What drafts bring, and what they are taken to be.
    fn drafted(&self) -> Vec<String> {
        let Some(Foreseen { who, habit, gain, memory, why_not }) = self.drafts else {
            return Vec::new();
        };
        let takes = match *memory {
            Bytes::ZERO => String::new(),
            memory => format!(", in {memory} of the memory"),
        };
        let [found, right] = [habit.found, habit.right].map(|share| share * 100.0);
        let rate = tokens_per_second(gain.tokens_per_second);
        let mut rows = vec![
            format!("by {who}{takes}"),
            format!(
                "{rate}, {:.1} tokens in a pass, if {found:.0} % of passes",
                gain.tokens_per_pass
            ),
            format!("have some, and {right:.0} % of what is drafted comes"),
        ];
        rows.extend(why_not.as_ref().map(|why| format!("not by the model's own head: {why}")));
        rows
    }

    /// What would help, and what another context would cost.
    fn other_ways(&self) -> Vec<(&'static str, String)> {
        let mut ways = Vec::new();
        if let Some(advice) = self.advice {
            let rate = tokens_per_second(advice.tokens_per_second);
            let more = match advice.more_ram {
                Bytes::ZERO => format!("{} more memory of the GPU", advice.more_vram),
                ram => format!("{ram} more RAM"),
            };
            ways.push(("faster", format!("with {more}: {rate}")));
        }
        if let Some(Smaller { name, bytes, tokens_per_second: rate, again }) = self.smaller {
            let whose = if again { " of the original" } else { "" };
            let rate = rate.map(|r| format!(", about {}", tokens_per_second(r)));
            let rate = rate.unwrap_or_default();
            ways.push(("quantised", format!("{name}{whose} would fit: {bytes}{rate}")));
        }
        if let Some(trade) = self.longer {
            ways.push((
                "longer",
                format!("a context of {} tokens {}", trade.ctx, self.trade(&trade)),
            ));
        }
        if let Some(trade) = self.smaller_kv {
            ways.push(("--kv", format!("{} {}", trade.kv, self.trade(&trade))));
        }
        ways
    }

    /// What another context takes, and what that means for blocks.
    fn trade(&self, trade: &Trade) -> String {
        let plan = self.plan;
        let difference = |from: Bytes, to: Bytes| match to >= from {
            true => format!("{} more", to.saturating_sub(from)),
            false => format!("{} less", from.saturating_sub(to)),
        };
        let context = plan.gpu.map_or(plan.memory.context, |gpu| gpu.context);
        let taken = difference(context, trade.context);
        let resident = plan.bytes(Tier::Resident);
        match resident == trade.resident {
            true => format!("takes {taken}"),
            false => format!(
                "takes {taken}, {} of blocks stay: {}",
                difference(resident, trade.resident),
                tokens_per_second(trade.tokens_per_second)
            ),
        }
    }

    /// What a token reads where its experts come one by one.
    fn of_experts(&self) -> Option<String> {
        let hits = self.plan.experts.as_ref()?.expected_hits() * 100.0;
        let (cold, warm) = (self.plan.cold_bytes_per_token(), self.plan.bytes_per_token());
        let rate = self.rates.disk_in(1);
        Some(format!(
            "{cold} for a token; {warm} at {rate} if {hits:.0} % of its experts are there"
        ))
    }

    /// The parts of the memory, with what they are for.
    fn shares(&self) -> Vec<(&'static str, Bytes, String)> {
        let Plan { memory, slot, n_slots, n_ctx, n_ubatch, .. } = self.plan;
        let Memory { process, outside, blocks, slots, host, staging, context, loading, .. } =
            *memory;
        let mut shares = vec![("process", process, "the program and the vocabulary".to_owned())];
        let count = |tier| n_blocks(self.plan.count(tier));
        if self.plan.gpu.is_some() {
            let output =
                if self.plan.output_by_cpu { "and the output matrix" } else { "of the tokens" };
            shares.push(("embeddings", outside, output.to_owned()));
            let left = self.plan.blocks.iter().any(|b| b.left > Bytes::ZERO);
            let by_cpu = match (self.plan.count(Tier::Cpu), left) {
                (0, true) => "what the GPU cannot compute with".to_owned(),
                (n, true) => format!("{}, and what the GPU cannot compute with", n_blocks(n)),
                (n, false) => n_blocks(n),
            };
            shares.push(("for the CPU", blocks, by_cpu));
            shares.push(("for slots", host, count(Tier::Host)));
            let kept = self.plan.experts.as_ref().map_or(0, |experts| experts.n_slots);
            shares.push(("experts", slots, of_each_block(kept)));
            shares.push(("staging", staging, "what is read passes through it".to_owned()));
            let of_it = match self.plan.kept_in_ram > Bytes::ZERO {
                true => format!("{n_ctx} tokens as {}, and attention", self.kv),
                false => "what the CPU computes of it".to_owned(),
            };
            shares.push(("context", context, of_it));
            shares.retain(|(_, bytes, _)| *bytes > Bytes::ZERO);
        } else {
            shares.push(("embeddings", outside, "and the output matrix".to_owned()));
            shares.push(("resident", blocks, self.resident()));
            if *n_slots > 0 {
                let what = match &self.plan.experts {
                    Some(experts) if experts.shares_slots && experts.n_slots > 0 => {
                        format!(
                            "{} experts of each block; for prompts {n_slots} of {slot}",
                            experts.n_slots
                        )
                    }
                    _ => format!("{n_slots} of {slot}"),
                };
                shares.push(("slots", slots, what));
            }
            let what = format!("{n_ctx} tokens as {}, {n_ubatch} in a pass", self.kv);
            shares.push(("context", context, what));
        }
        if loading > context {
            shares.push(("loading", loading, "while the context is not in use yet".to_owned()));
        }
        shares
    }

    /// What is resident.
    fn resident(&self) -> String {
        let (whole, partly) = (self.plan.count_here(), self.plan.count_partly());
        match (whole, partly) {
            (0, 0) if self.plan.bytes_here() > Bytes::ZERO => "small tensors".to_owned(),
            (_, 0) => n_blocks(whole),
            (0, _) => format!("parts of {}", n_blocks(partly)),
            _ => format!("{}, and parts of {partly}", n_blocks(whole)),
        }
    }

    /// The GPUs, each with the parts of its memory.
    fn gpus(&self) -> Vec<(String, String)> {
        let Report { plan, device, further, .. } = self;
        let mut lines = Vec::new();
        let mut gpu = |device: &str, memory: &GpuMemory, resident: String| {
            let all = format!("{} of {}, {device}", memory.peak(), memory.budget);
            lines.push(("GPU".to_owned(), all));
            for (name, bytes, what) in self.gpu_shares(memory, resident) {
                lines.push((format!("  {name}"), format!("{:<9} {what}", bytes.to_string())));
            }
        };
        if let Some(memory) = &plan.gpu {
            gpu(device, memory, self.resident());
        }
        for (HeldBy { blocks, memory, .. }, device) in plan.further.iter().zip(*further) {
            let last = plan.blocks[blocks.end - 1].place;
            let resident = match blocks.len() {
                1 => last.to_string(),
                n => format!("{n} blocks, {} to {last}", plan.blocks[blocks.start].place),
            };
            gpu(device, memory, resident);
        }
        lines
    }

    /// The parts of a GPU's memory, with what they are for, and what of blocks is resident.
    fn gpu_shares(
        &self,
        memory: &GpuMemory,
        resident: String,
    ) -> Vec<(&'static str, Bytes, String)> {
        let Plan { slot, n_slots, n_ctx, n_ubatch, .. } = self.plan;
        let GpuMemory { outside, blocks, slots, context, driver, visiting, .. } = *memory;
        let output = if self.plan.output_by_cpu { "the final norm" } else { "the output matrix" };
        let above = self.plan.experts.as_ref().and_then(|experts| experts.on_device);
        let kept = above.map_or(0, |above| above.n_slots);
        let of_context = match self.plan.kept_in_ram > Bytes::ZERO {
            true => format!("activations of {n_ubatch} tokens"),
            false => format!("{n_ctx} tokens as {}, {n_ubatch} in a pass", self.kv),
        };
        let of_units = (*slot * *n_slots as u64).min(slots);
        let of_units = if above.is_some_and(|above| above.lends) { Bytes::ZERO } else { of_units };
        let of_experts = match of_units {
            Bytes::ZERO => format!("{}; for prompts {n_slots} of {slot}", of_each_block(kept)),
            _ => of_each_block(kept),
        };
        let mut shares = vec![
            ("output", outside, output.to_owned()),
            ("resident", blocks, resident),
            ("slots", of_units, format!("{n_slots} of {slot}")),
            ("experts", slots.saturating_sub(of_units), of_experts),
            ("context", context, of_context),
            ("driver", driver, "libraries' and kernels' own".to_owned()),
            ("visiting", visiting, "a tensor of the CPU's, in prompts".to_owned()),
        ];
        shares.retain(|(_, bytes, _)| *bytes > Bytes::ZERO);
        shares
    }
}

/// What a pool of experts is for.
fn of_each_block(kept: usize) -> String {
    match kept {
        0 => "those of a token pass through it".to_owned(),
        n => format!("{n} of each block"),
    }
}

/// Which of [`KINDS`] a block is.
fn kind(block: &Placed) -> usize {
    let partly = block.partly && block.tier == Tier::Streamed;
    KINDS.iter().position(|k| *k == (block.tier, partly)).unwrap_or_default()
}

/// The bar of blocks, in rows.
fn picture(plan: &Plan, look: Look) -> Vec<String> {
    let row = |blocks: &[Placed]| {
        let mut row = String::new();
        for group in blocks.chunk_by(|a, b| kind(a) == kind(b)) {
            let which = kind(&group[0]);
            row += look.paint[which];
            row.extend(std::iter::repeat_n(look.blocks[which], group.len()));
            row += look.paint[KINDS.len()];
        }
        row
    };
    plan.blocks.chunks(ROW).map(row).collect()
}

/// What the picture's characters stand for, in as many lines as it takes.
fn legend(plan: &Plan, look: Look) -> Vec<String> {
    let units = |partly| {
        let which = |u: &&Unit| plan.blocks[u.block].partly == partly;
        let from_disk = |u: &&Unit| plan.blocks[u.block].tier == Tier::Streamed;
        plan.streamed.iter().filter(which).filter(from_disk).count()
    };
    let is_whole = |b: &&Placed| b.tier == Tier::Streamed && !b.partly;
    let whole = plan.blocks.iter().filter(is_whole).count();
    let streamed = match units(false) {
        n if n > whole => format!("streamed from disk in {n} parts"),
        _ => "streamed from disk".to_owned(),
    };
    let partly = format!("partly resident ({} from disk)", stream(units(true)));
    let resident = match (plan.gpu.is_some(), plan.further.is_empty()) {
        (false, _) => "resident in RAM",
        (true, true) => "resident in the GPU",
        (true, false) => "resident in the GPUs",
    };
    let names = [resident, "computed by the CPU", "streamed from RAM", &partly, &streamed];
    // The longest line so far in columns, without what paints it.
    let mut lines: Vec<(String, usize)> = Vec::new();
    for (i, name) in names.into_iter().enumerate() {
        let n = plan.blocks.iter().filter(|b| kind(b) == i).count();
        if n == 0 {
            continue;
        }
        let text =
            format!("{}{}{} {n} {name}", look.paint[i], look.blocks[i], look.paint[KINDS.len()]);
        let columns = format!("x {n} {name}").len();
        match lines.last_mut() {
            // After the name column and a gap.
            Some((line, len)) if 14 + *len + 2 + columns <= WIDTH => {
                line.push_str("  ");
                line.push_str(&text);
                *len += 2 + columns;
            }
            _ => lines.push((text, columns)),
        }
    }
    lines.into_iter().map(|(line, _)| line).collect()
}

fn n_blocks(n: usize) -> String {
    if n == 1 { "1 block".to_owned() } else { format!("{n} blocks") }
}

fn stream(n: usize) -> String {
    if n == 1 { "1 part streams".to_owned() } else { format!("{n} parts stream") }
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
