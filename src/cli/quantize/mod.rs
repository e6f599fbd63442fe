//! `airrun quantize`: a smaller file of the same model. The work is done in a process of its own (`worker`), because libllama can
//! neither be interrupted nor kept from ending its process; this side checks first, shows how far it is, and names the result
//! only when it is complete.

mod worker;

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;

use crate::cli::args::{Budget, QuantizeArgs, TypeArg};
use crate::cli::exit::{ExitStatus, Failure};
use crate::cli::interrupt::Interrupt;
use crate::cli::printer::Printer;
use crate::cli::progress::{Status, Watched};
use crate::cli::resolve;
use crate::engine::LoadOptions;
use crate::engine::planning;
use crate::engine::quantize::{self, QuantType};
use crate::files;
use crate::gguf::Index;
use crate::os::files::Found;
use crate::probe::{self, space};
use crate::units::{Bytes, MIB};

pub(crate) use worker::run as work;
use worker::{Job, Worker};

/// Room on the disk that is left.
const SPARE: Bytes = Bytes(16 * MIB.0);
/// What a model needs beside its weights where a plan cannot tell.
const OVERHEAD: Bytes = Bytes(512 * MIB.0);

/// Quantises, and says what came of it.
pub(crate) fn run(args: &QuantizeArgs, printer: &Printer) -> anyhow::Result<ExitStatus> {
    let interrupt = Interrupt::new()?;
    let index = resolve::model(&args.model)?.index;
    index.check_model()?;
    check_output(args, &index)?;
    if quantize::is_quantised_already(&index) {
        if !args.requantize {
            return Err(Failure::error(
                format!("model '{}': it is quantised already", args.model.display()),
                "quantise the F16 or BF16 original; --requantize does it all the same, and loses more",
            ));
        }
        printer.warn(
            "the model is quantised already: quantising the original would give a better one",
        );
    }
    let ty = match args.ty {
        TypeArg::Named(ty) => ty,
        TypeArg::Auto => largest_that_fits(args, &index, &interrupt, printer)?,
    };
    let job = job(args, &index, ty);
    let header: Bytes = index.files.iter().map(|f| Bytes(f.data_offset)).sum();
    check_space(
        &args.output,
        size_of(&Job { dry_run: true, ..job.clone() }, &interrupt, printer)? + header,
    )?;
    files::sweep(&args.output);
    let part = files::part_of(&args.output);
    // Of another process that once had this one's number.
    drop(fs::remove_file(&part));
    convert(&Job { output: part.clone(), ..job }, &interrupt, printer)
        .and_then(|()| name_it(&part, &args.output))
        .inspect_err(|_| drop(fs::remove_file(&part)))?;
    let (before, after) = (index.bytes(), fs::metadata(&args.output).map_or(0, |m| m.len()));
    let percent = Bytes(after).f64() / before.f64().max(1.0) * 100.0;
    let output = args.output.display();
    printer.dim(format!("{output}: {}, {percent:.0} % of {before}, {}", Bytes(after), ty.name));
    Ok(ExitStatus::Ok)
}

/// Refuses an output that exists, is the input, or has no place.
fn check_output(args: &QuantizeArgs, index: &Index) -> anyhow::Result<()> {
    let output = &args.output;
    let shown = output.display();
    let Ok(there) = fs::metadata(output) else {
        let dir = parent(output);
        let hint = "make the directory first";
        return if dir.is_dir() {
            Ok(())
        } else {
            Err(Failure::error(
                format!("'{shown}': there is no directory '{}'", dir.display()),
                hint,
            ))
        };
    };
    let own = Found::at(output).ok().map(|found| found.id);
    let is_input = |path: &Path| Found::at(path).is_ok_and(|found| Some(found.id) == own);
    if index.files.iter().any(|f| is_input(&f.path)) {
        return Err(Failure::error(
            format!("'{shown}': that is the model itself"),
            "name another file",
        ));
    }
    if !there.is_file() {
        return Err(Failure::error(
            format!("'{shown}': that is not a file"),
            "name a file to be written",
        ));
    }
    if !args.force {
        return Err(Failure::error(format!("'{shown}': it exists"), "--force replaces it"));
    }
    Ok(())
}

/// The type for `auto`, said to the user.
fn largest_that_fits(
    args: &QuantizeArgs,
    index: &Index,
    interrupt: &Interrupt,
    printer: &Printer,
) -> anyhow::Result<&'static QuantType> {
    let ram = match args.ram {
        Budget::Size(size) => Some(size),
        Budget::Auto => None,
    };
    let (budget, overhead) = budget(index, ram);
    let room = budget.saturating_sub(overhead);
    let name = args.model.display();
    if index.bytes() <= room {
        return Err(Failure::error(
            format!("model '{name}': it fits the {budget} as it is"),
            "name a type, such as --type q8_0, to make it smaller all the same",
        ));
    }
    for ty in quantize::smaller(index) {
        let size = size_of(&Job { dry_run: true, ..job(args, index, ty) }, interrupt, printer)?;
        if size <= room {
            let why = format!("{size} of weights and {overhead} beside them fit {budget}");
            printer.dim(format!("taking {}: {why}", ty.name));
            return Ok(ty);
        }
    }
    Err(Failure::error(
        format!("model '{name}': no type makes it fit: {room} are left for its weights"),
        "a smaller model is the better choice; airrun also runs it as it is, from disk",
    ))
}

/// What is to be done, with the output under its own name.
fn job(args: &QuantizeArgs, index: &Index, ty: &'static QuantType) -> Job {
    Job {
        model: index.files[0].path.clone(),
        output: args.output.clone(),
        ty,
        threads: args.threads.unwrap_or_else(probe::physical_cores).max(1),
        requantize: args.requantize,
        dry_run: false,
    }
}

/// What the weights will take, to the hundredth of a MiB: libllama chooses the type of each tensor.
fn size_of(job: &Job, interrupt: &Interrupt, printer: &Printer) -> anyhow::Result<Bytes> {
    let size = Worker::start(job, interrupt, printer)?.finish()?;
    size.context("the process that quantises told no size")
}

/// The memory that may be used, and what a model needs of it beside its weights, at the context that it would get.
fn budget(index: &Index, ram: Option<Bytes>) -> (Bytes, Bytes) {
    // A plan without the user's budget: with it, a model that does not fit may have no plan at all.
    match planning::plan(&Arc::new(index.clone()), &LoadOptions::default(), true) {
        Ok(planned) => {
            let memory = planned.plan.memory;
            (ram.unwrap_or(memory.budget), memory.process + memory.context)
        }
        Err(_) => {
            let machine = probe::machine();
            (ram.unwrap_or(machine.ram.saturating_sub(machine.reserve)), OVERHEAD)
        }
    }
}

fn check_space(output: &Path, size: Bytes) -> anyhow::Result<()> {
    let Some(free) = space::free(output).filter(|free| size + SPARE > *free) else { return Ok(()) };
    Err(Failure::error(
        format!("'{}': it would take {size}, and the disk has {free} left", output.display()),
        "free some room, or write to another disk",
    ))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Has it written under a status line. An interrupt ends both processes, and leaves nothing.
fn convert(job: &Job, interrupt: &Interrupt, printer: &Printer) -> anyhow::Result<()> {
    let worker = Worker::start(job, interrupt, printer)?;
    let step = worker.step();
    let what = format!("quantising to {}", job.ty.name);
    let line = move || {
        let (i, n) = step.get();
        let percent = (u64::from(i.saturating_sub(1)) * 100).checked_div(n.into()).unwrap_or(0);
        if n == 0 {
            format!("{what} ...")
        } else {
            format!("{what}: tensor {i} of {n} ({percent} %)")
        }
    };
    let _status = Status::start(printer, Watched::Line(Box::new(line)));
    let ended = worker.finish();
    interrupt.exits();
    ended.map(drop)
}

/// Looks at the result once more, makes it last, and gives it its name.
fn name_it(part: &Path, output: &Path) -> anyhow::Result<()> {
    Index::open(part)?.check_model()?;
    File::open(part).and_then(|f| f.sync_all()).with_context(|| part.display().to_string())?;
    fs::rename(part, output).with_context(|| output.display().to_string())
}
