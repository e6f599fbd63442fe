//! `airrun devices`: what can compute on this machine, with what memory, and how fast bytes get there. It loads no model.

use std::fmt::Write as _;

use serde_json::json;

use crate::cli::args::DevicesArgs;
use crate::cli::exit::ExitStatus;
use crate::cli::interrupt::Interrupt;
use crate::cli::printer::Printer;
use crate::cli::progress::{Status, Watched};
use crate::engine::devices::{self, Listed};
use crate::probe::link::Link;
use crate::probe::nvidia::Driver;

/// Measures, and shows.
pub(crate) fn run(args: &DevicesArgs, printer: &Printer) -> anyhow::Result<ExitStatus> {
    let _interrupt = Interrupt::new()?;
    let status = Status::start(printer, Watched::Step("measuring this machine".to_owned()));
    let list = devices::list()?;
    let nvidia = Driver::ask();
    drop(status);
    if !cfg!(feature = "cuda") && !args.json {
        for card in nvidia.cards() {
            let (name, memory) = (&card.name, card.memory);
            printer.say(format_args!(
                "there is a card ({name} with {memory}), and this build has no CUDA: make cuda"
            ));
        }
    }
    let text = if args.json {
        serde_json::to_string_pretty(&json!({ "devices": list, "nvidia": nvidia }))? + "\n"
    } else {
        list.iter().map(describe).collect()
    };
    printer.data(&text)?;
    Ok(ExitStatus::Ok)
}

/// Some lines about one device.
fn describe(device: &Listed) -> String {
    let mut out = String::new();
    let mut line = |name: &str, text: String| {
        let _ = writeln!(out, "{name:<10} {text}");
    };
    let auto = if device.auto { ", what --device auto takes" } else { "" };
    line(&device.name, device.description.trim().to_owned());
    let whose = if device.integrated { " of the machine's" } else { "" };
    line("", format!("{} free of {}{whose}{auto}", device.memory_free, device.memory_total));
    if let Some(link) = &device.link {
        line("", bus(link));
    }
    match (device.upload, device.pinned) {
        (Some(rate), Some(true)) => line("", format!("{rate} from pinned memory")),
        (Some(rate), _) => line("", format!("{rate} from memory that is not pinned")),
        (None, _) if device.name != "cpu" => line("", "could not be measured".to_owned()),
        _ => {}
    }
    out
}

/// A bus, and what it could be.
fn bus(link: &Link) -> String {
    let name = |speed, width| format!("PCIe {}.0 x{width}", Link::generation(speed));
    let now = name(link.speed, link.width);
    let most = name(link.max_speed, link.max_width);
    if now == most { now } else { format!("{most}, at this moment {now}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{GIB, Rate};

    #[test]
    fn a_device_reads_like_this() {
        let link = Link { speed: 2.5, width: 16, max_speed: 16.0, max_width: 16 };
        let device = Listed {
            name: "cuda:0".to_owned(),
            description: "NVIDIA GeForce".to_owned(),
            integrated: false,
            memory_free: GIB * 7,
            memory_total: GIB * 8,
            link: Some(link),
            upload: Some(Rate(25e9)),
            pinned: Some(true),
            auto: true,
        };
        let want = "\
cuda:0     NVIDIA GeForce
           7.00 GiB free of 8.00 GiB, what --device auto takes
           PCIe 4.0 x16, at this moment PCIe 1.0 x16
           25.00 GB/s from pinned memory
";
        assert_eq!(describe(&device), want);
        let bare = Listed { link: None, upload: None, pinned: None, auto: false, ..device };
        assert!(describe(&bare).ends_with("\n           could not be measured\n"));
    }
}
