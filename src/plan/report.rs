//! A plan for people, and the same as JSON. It knows neither terminals nor colours' names: the look is handed in.

mod text;

use serde_json::{Value, json};

use super::{Estimate, Foreseen, Placed, Plan, Rates, Tier};
use crate::units::Bytes;

/// Everything that is to be shown.
#[derive(Clone, Debug)]
pub struct Report<'a> {
    /// The model's name.
    pub name: &'a str,
    /// What computes: `cpu`, or what `--device` calls the GPU.
    pub device: &'a str,
    /// What `--device` calls the further GPUs that hold blocks, in the order of [`Plan::further`].
    pub further: &'a [String],
    /// Bytes of all its tensors.
    pub weights: Bytes,
    /// Where everything lives.
    pub plan: &'a Plan,
    /// What was measured.
    pub rates: &'a Rates,
    /// What it will cost.
    pub estimate: &'a Estimate,
    /// What drafts will bring, where somebody drafts.
    pub drafts: Option<&'a Foreseen>,
    /// What more memory would bring, if anything.
    pub advice: Option<Advice>,
    /// The type with which all of it would be resident, if quantising helped.
    pub smaller: Option<Smaller>,
    /// What keys and values are.
    pub kv: &'a str,
    /// What twice the context would cost.
    pub longer: Option<Trade>,
    /// What smaller keys and values would bring.
    pub smaller_kv: Option<Trade>,
}

/// What would help most.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Advice {
    /// RAM beyond what there is.
    pub more_ram: Bytes,
    /// Memory of the GPU beyond what there is.
    pub more_vram: Bytes,
    /// Tokens per second of generation with it.
    pub tokens_per_second: f64,
}

/// A type that a model could be quantised to, so that nothing needs to stream.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Smaller {
    /// Its name, as `airrun quantize` knows it.
    #[serde(rename = "type")]
    pub name: &'static str,
    /// What the weights would take, roughly.
    pub bytes: Bytes,
    /// Tokens per second of generation then, if that could be measured.
    pub tokens_per_second: Option<f64>,
    /// Whether the weights are quantised already: then it is the original that should be.
    pub again: bool,
}

/// What another context would cost or bring.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Trade {
    /// Its length. (tokens)
    pub ctx: u32,
    /// What its keys and values are.
    pub kv: &'static str,
    /// What it takes.
    pub context: Bytes,
    /// Bytes of blocks that are resident beside it.
    pub resident: Bytes,
    /// Tokens per second of generation then.
    pub tokens_per_second: f64,
}

/// How the picture of the blocks is drawn.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// A block of each of [`KINDS`].
    pub blocks: [char; 5],
    /// What is printed before a row of blocks of each, and after each.
    pub paint: [&'static str; 6],
}

/// With block characters.
pub const UNICODE: [char; 5] = ['█', '▓', '▒', '▄', '░'];
/// With letters that every terminal has.
pub const ASCII: [char; 5] = ['#', '+', 'o', ':', '.'];

/// The kinds of blocks that a picture distinguishes, from the fastest to the slowest: by tier, and whether they are there in part.
pub const KINDS: [(Tier, bool); 5] = [
    (Tier::Resident, false),
    (Tier::Cpu, false),
    (Tier::Host, false),
    (Tier::Streamed, true),
    (Tier::Streamed, false),
];

impl Report<'_> {
    /// All of it.
    pub fn json(&self) -> Value {
        let plan = self.plan;
        let block = |b: &Placed| {
            let (place, streamed) = (b.place.to_string(), b.streamed);
            json!({ "block": place, "tier": b.tier, "bytes": b.len, "streamed_bytes": streamed })
        };
        let mut memory = json!(plan.memory);
        memory["peak"] = json!(plan.memory.peak());
        let mut gpu = json!(plan.gpu);
        if let Some(memory) = plan.gpu {
            gpu["peak"] = json!(memory.peak());
        }
        let further = plan.further.iter().zip(self.further).map(|(held, device)| {
            let mut memory = json!(held.memory);
            memory["peak"] = json!(held.memory.peak());
            let first = plan.blocks[held.blocks.start].place.to_string();
            json!({ "device": device, "first_block": first, "blocks": held.blocks.len(), "memory": memory })
        });
        let share = |tier| json!({ "blocks": plan.count(tier), "bytes": plan.bytes(tier) });
        json!({
            "model": self.name,
            "device": self.device,
            "weights": self.weights,
            "blocks": plan.blocks.iter().map(block).collect::<Vec<_>>(),
            "resident": share(Tier::Resident),
            "cpu": share(Tier::Cpu),
            "host": share(Tier::Host),
            "streamed": {
                "blocks": plan.count(Tier::Streamed),
                "bytes": plan.disk_bytes(),
                "partly": plan.count_partly(),
                "units": plan.streamed.len(),
            },
            "slots": { "count": plan.n_slots, "bytes": plan.slot },
            "experts": plan.experts.as_ref().map(|experts| json!({
                "blocks": experts.blocks.len(),
                "used": experts.used,
                "kept_of_each_block": experts.n_slots,
                "bytes": experts.pool,
                "kept_on_device": experts.on_device.map(|above| above.n_slots),
                "bytes_on_device": experts.on_device.map(|above| above.pool),
                "prompts_borrow_on_device": experts.on_device.map(|above| above.lends),
                "expected_hit_rate": experts.expected_hits(),
                "cold_bytes_per_token": plan.cold_bytes_per_token(),
                "bytes_per_token": plan.bytes_per_token(),
            })),
            "ctx": plan.n_ctx,
            "kv": self.kv,
            "longer": self.longer,
            "smaller_kv": self.smaller_kv,
            "ubatch": plan.n_ubatch,
            "memory": memory,
            "gpu": gpu,
            "kept_in_ram": plan.kept_in_ram,
            "further_gpus": further.collect::<Vec<_>>(),
            "output": if plan.output_by_cpu { Tier::Cpu } else { Tier::Resident },
            "rates": self.rates,
            "estimate": self.estimate,
            "drafts": self.drafts,
            "advice": self.advice,
            "smaller": self.smaller,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Cost;
    use crate::plan::solve::gpu_tests::mixed_plan;
    use crate::plan::solve::tests::{partly_plan, whole_plan};
    use crate::plan::{Touched, estimate};
    use crate::units::{GIB, MIB, Rate};

    #[test]
    fn a_report_reads_like_this() {
        let (index, plan) = whole_plan();
        let cost = Cost { one: Rate(10e9), many: Rate(500e9) };
        let rates = Rates {
            disk: Rate(2e9),
            disk_one: None,
            disk_many: None,
            resident: cost,
            streamed: cost,
            memory: None,
            gpu: None,
            open_seconds: 0.5,
        };
        let touched = Touched { of_block: 1.0, of_ffn: 1.0, output: MIB * 100, queries: 1 };
        let estimate = estimate(&plan, &rates, touched, 512);
        let advice =
            Some(Advice { more_ram: GIB * 2, more_vram: Bytes::ZERO, tokens_per_second: 2.345 });
        let report = Report {
            name: "forty",
            device: "cpu",
            further: &[],
            weights: index.bytes(),
            plan: &plan,
            rates: &rates,
            estimate: &estimate,
            drafts: None,
            advice,
            smaller: None,
            kv: "f16",
            longer: None,
            smaller_kv: None,
        };
        let look = Look { blocks: ASCII, paint: [""; 6] };
        let want = "\
model         forty: 40 blocks, 4.10 GiB of weights
blocks        #.#.#.#.#.#.#.#.#.#.#.#.#.#.#.#.#.#.#.#.
              # 20 resident in RAM  . 20 streamed from disk
RAM           2.55 GiB of 2.55 GiB (--ram)
  process     50.0 MiB  the program and the vocabulary
  embeddings  200 MiB   and the output matrix
  resident    1.95 GiB  20 blocks
  slots       200 MiB   2 of 100 MiB
  context     156 MiB   4096 tokens as f16, 512 in a pass
disk          1.95 GiB read in each pass, at 2.00 GB/s
generation    0.95 tokens/s, limited by disk
prompt        119 tokens/s, limited by compute
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

    #[test]
    fn blocks_that_stream_in_part_are_shown() {
        let (index, plan) = partly_plan();
        let rates = Rates::usual(2);
        let estimate = estimate(&plan, &rates, Touched::of(&index), 512);
        let smaller = Some(Smaller {
            name: "q3_k_m",
            bytes: GIB * 2,
            tokens_per_second: Some(5.678),
            again: true,
        });
        let report = Report {
            name: "forty",
            device: "cpu",
            further: &[],
            weights: index.bytes(),
            plan: &plan,
            rates: &rates,
            estimate: &estimate,
            drafts: None,
            advice: None,
            smaller,
            kv: "f16",
            longer: None,
            smaller_kv: None,
        };
        let text = report.text(Look { blocks: ASCII, paint: [""; 6] });
        let (n, parts) = (plan.count_partly(), plan.streamed.len());
        assert!(
            text.contains(&format!(": {n} partly resident ({parts} parts stream from disk)\n")),
            "{text}"
        );
        assert!(text.contains("parts of "), "{text}");
        let want =
            "quantised     q3_k_m of the original would fit: 2.00 GiB, about 5.68 tokens/s\n";
        assert!(text.contains(want), "{text}");
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        let json = report.json();
        assert_eq!(json["streamed"]["partly"], n);
        assert_eq!(json["smaller"]["type"], "q3_k_m");
        assert!(json["blocks"][0]["streamed_bytes"].is_u64());
    }

    #[test]
    fn a_report_of_a_gpu_reads_like_this() {
        let (index, machine, plan) = mixed_plan();
        let rates = machine.gpu.unwrap().rates;
        let estimate = estimate(&plan, &rates, Touched::of(&index), 512);
        let report = Report {
            name: "eighty",
            device: "cuda:0",
            further: &[],
            weights: index.bytes(),
            plan: &plan,
            rates: &rates,
            estimate: &estimate,
            drafts: None,
            advice: None,
            smaller: None,
            kv: "f16",
            longer: None,
            smaller_kv: None,
        };
        let text = report.text(Look { blocks: ASCII, paint: [""; 6] });
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        for part in [
            "\nGPU           ",
            ", cuda:0\n",
            " computed by the CPU",
            " streamed from RAM\n",
            "\n  for slots   ",
            "\n  slots       ",
            "\n  staging     ",
            "\nlink          ",
            "\ndisk          ",
        ] {
            assert!(text.contains(part), "no {part:?} in:\n{text}");
        }
        let json = report.json();
        assert_eq!(json["device"], "cuda:0");
        assert!(json["gpu"]["peak"].as_u64() <= json["gpu"]["budget"].as_u64());
        let blocks = |tier: &str| json[tier]["blocks"].as_u64().unwrap();
        assert_eq!(["resident", "cpu", "host", "streamed"].map(blocks).iter().sum::<u64>(), 80);
    }
}
