//! Rows of the table for machines with a second GPU, and how long planning for such takes.

use super::*;

/// The machine that has two GPUs, and by how much the second is faster than the first.
fn with_second(share: f64, budget: Bytes) -> Machine {
    let cpu = cpu_rates(7.0, 60.0, 900.0);
    let (one, many) = (900.0, 60_000.0);
    let mut first = gpu(cpu, 25.0, one, many);
    let cost = Cost { one: Rate(one * share * 1e9), many: Rate(many * share * 1e9) };
    first.further[0] = Some(budget);
    first.rates.gpu = first.rates.gpu.map(|mut beside| {
        beside.further[0] = Some(cost);
        beside
    });
    Machine { ram: GIB * 1024, reserve: Bytes::ZERO, rates: cpu, gpu: Some(first) }
}

#[test]
fn the_table_of_plans_with_two_gpus() {
    let mut table = String::new();
    let seconds = [("like it", 1.0), ("a third as fast", 0.3), ("twice as fast", 2.0)];
    for model in models().iter().filter(|m| USUAL.contains(&m.name)) {
        let size = model.index.blocks.iter().map(|b| b.len).sum::<Bytes>();
        let share = |percent: u64| Bytes(size.0 / 100 * percent);
        let least = MIB * (150 + 250 * model.wide);
        let outside: Bytes = model.index.tensors[..2].iter().map(|t| t.len).sum();
        let touched = Touched::of(&model.index);
        for (how, speed) in seconds {
            for (first, second) in [(15, 10), (40, 40), (70, 40), (3, 120), (120, 40)] {
                let machine = with_second(speed, share(second) + least);
                let wish = wish(share(5) + MIB * 200 + outside, share(first) + least);
                let plan = plan_for(model, &machine, &wish, &HashSet::new()).0;
                let rates = machine.gpu.map_or(machine.rates, |gpu| gpu.rates);
                let text = match plan {
                    Ok(plan) => {
                        let held = |held: &HeldBy| {
                            format!(
                                "{} on the second in {}, ",
                                held.blocks.len(),
                                held.memory.peak()
                            )
                        };
                        let held: String = plan.further.iter().map(held).collect();
                        held + &describe(&plan, &rates, touched)
                    }
                    Err(refusal) => refusal.to_string(),
                };
                let _ = writeln!(
                    table,
                    "{} vram {first} %, a second {how} {second} %: {text}",
                    model.name
                );
            }
        }
    }
    insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true, snapshot_path => "../snapshots" }, {
        insta::assert_snapshot!("plans_with_two", table);
    });
}

/// As with one GPU, few plans are judged: planning takes milliseconds.
#[test]
fn a_huge_mixture_is_planned_for_two_gpus_at_once() {
    let model = huge();
    let size = model.index.blocks.iter().map(|b| b.len).sum::<Bytes>();
    let share = |percent| Bytes(size.0 / 100 * percent) + GIB * 4;
    let mut slowest = Duration::ZERO;
    for speed in [0.3, 1.0, 2.0] {
        for (ram, first, second) in [(20, 3, 3), (40, 15, 10), (60, 50, 30), (130, 30, 60)] {
            let machine = with_second(speed, share(second));
            let (wish, begin) = (wish(share(ram), share(first)), Instant::now());
            let (plan, judged) = plan_for(&model, &machine, &wish, &HashSet::new());
            slowest = slowest.max(begin.elapsed());
            assert!(plan.is_ok() && judged < 900, "{speed}, {ram} %, {first} %: {judged}");
        }
    }
    let _ = writeln!(std::io::stderr(), "the slowest plan with two GPUs took {slowest:?}");
}
