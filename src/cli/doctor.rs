//! `airrun doctor`: what was found here, what this build can do, how fast memory and disks are, and what makes it slow. The
//! facts are gathered and shown here; what they mean is in `findings`.

mod facts;
mod findings;

use std::fmt::Write as _;
use std::path::Path;

use anstyle::{AnsiColor, Style};
use serde_json::json;

use crate::cli::args::DoctorArgs;
use crate::cli::exit::ExitStatus;
use crate::cli::printer::Printer;
use crate::cli::progress::{Status, Watched};
use crate::engine::devices::Listed;
use crate::models::places::Kind;
use facts::{Config, Facts, Folder};
use findings::{Finding, Level, findings};

/// Looks, and says what it sees. It ends well even if something is broken: saying so is its purpose.
pub(crate) fn run(
    args: &DoctorArgs,
    config: Option<&Path>,
    printer: &Printer,
) -> anyhow::Result<ExitStatus> {
    let status = Status::start(printer, Watched::Step("measuring this machine".to_owned()));
    let facts = Facts::gather(config, !args.quick);
    drop(status);
    let findings = findings(&facts);
    let text = if args.json {
        let mut value = serde_json::to_value(&facts)?;
        value["findings"] = json!(findings);
        serde_json::to_string_pretty(&value)? + "\n"
    } else {
        show(&facts, &findings, printer.color_data())
    };
    printer.data(&text)?;
    Ok(ExitStatus::Ok)
}

/// The facts and findings for people, in 80 columns.
fn show(facts: &Facts, findings: &[Finding], color: bool) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: &str| {
        for (i, part) in wrap(value, 66).iter().enumerate() {
            let name = if i == 0 { name } else { "" };
            let _ = writeln!(out, "{name:<12}  {part}");
        }
    };
    line("airrun", &facts.version);
    line("build", &build(facts));
    line("processor", &processor(facts));
    line("memory", &memory(facts));
    for (i, device) in facts.devices.iter().enumerate() {
        line(if i == 0 { "devices" } else { "" }, &device_line(device));
    }
    line("config", &config(&facts.config));
    // Most of the many places where a tool could keep models are not there; one that was named should be.
    let named = |folder: &Folder| folder.keeper == Some(Kind::Named);
    let shown = facts.folders.iter().filter(|folder| folder.exists || named(folder));
    for (i, folder) in shown.enumerate() {
        line(if i == 0 { "models" } else { "" }, &folder_line(folder));
    }
    let _ = writeln!(out);
    for finding in findings {
        let (word, style) = match finding.level {
            Level::Broken => ("broken", AnsiColor::Red.on_default().bold()),
            Level::Slow => ("slow", AnsiColor::Yellow.on_default().bold()),
            Level::Note => ("note", AnsiColor::Cyan.on_default()),
        };
        let style = if color { style } else { Style::new() };
        for (i, part) in wrap(&finding.what, 70).iter().enumerate() {
            let word = if i == 0 { word } else { "" };
            let _ = writeln!(out, "{style}{word:<6}{style:#}  {part}");
        }
        for (i, part) in wrap(&finding.hint, 64).iter().enumerate() {
            let _ = writeln!(out, "        {}{part}", if i == 0 { "hint: " } else { "      " });
        }
    }
    if findings.is_empty() {
        let style = if color { AnsiColor::Green.on_default() } else { Style::new() };
        let _ = writeln!(out, "{style}Nothing here slows it down.{style:#}");
    }
    out
}

fn build(facts: &Facts) -> String {
    let native = if facts.build.native { "for this processor" } else { "for any processor" };
    let devices = match facts.build.features.as_slice() {
        [] => "no GPU support".to_owned(),
        features => format!("with {}", features.join(", ")),
    };
    format!("{native}, {devices}; ggml uses {}", facts.build.cpu_features.join(" "))
}

fn processor(facts: &Facts) -> String {
    let mut text = format!("{}, {} cores to compute on", facts.cpu.name, facts.cpu.cores);
    if let Some(quota) = facts.cpu.quota {
        let _ = write!(text, ", of which a control group allows {quota:.1}");
    }
    text
}

fn memory(facts: &Facts) -> String {
    let memory = &facts.memory;
    let mut text = format!("{} of {} free", memory.available, memory.total);
    if let Some(limit) = memory.group_limit {
        let _ = write!(text, "; a control group allows {limit} in all");
    }
    if let Some(rate) = memory.rate {
        let _ = write!(text, "; read at {rate}");
    }
    if memory.swap.total.0 > 0 {
        let _ = write!(text, "; {} of {} swap in use", memory.swap.used, memory.swap.total);
    }
    text
}

fn device_line(device: &Listed) -> String {
    let mut text = format!("{} ({})", device.name, device.description.trim());
    if let Some(rate) = device.upload {
        let _ = write!(text, ", fed at {rate}");
    }
    if device.auto {
        text.push_str(", what --device auto takes");
    }
    text
}

fn config(config: &Config) -> String {
    match (&config.path, &config.error) {
        (_, Some(error)) => error.clone(),
        (Some(path), None) => path.display().to_string(),
        (None, None) => {
            let usual = config.usual.as_ref().map(|path| path.display().to_string());
            format!("none ({} would be read)", usual.unwrap_or_default())
        }
    }
}

fn folder_line(folder: &Folder) -> String {
    let mut text = folder.path.display().to_string();
    if !folder.exists {
        return text + " (not there)";
    }
    if let Some(mount) = &folder.mount {
        let _ = write!(text, " on {}", mount.kind);
    }
    if findings::turns(folder) {
        text.push_str(", a turning disk");
    }
    match (folder.n_models, folder.rate) {
        (0, _) => text.push_str(": no models"),
        (n, rate) => {
            let _ = write!(text, ": {n} model{}", if n == 1 { "" } else { "s" });
            if let Some(rate) = rate {
                let how = folder.reader.as_deref().unwrap_or_default();
                let _ = write!(text, ", read at {} ({how})", rate);
            }
        }
    }
    text
}

/// Lines of at most `width` characters; a longer word has a line of its own.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("one at least");
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
            continue;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines
}
