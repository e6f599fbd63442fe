//! `airrun serve`: a model for other programs, over HTTP.

use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::time::Duration;

use crate::cli::args::serve::{LogArg, ServeArgs};
use crate::cli::draft;
use crate::cli::exit::{self, ExitStatus, Failure};
use crate::cli::offer::{aside, preset};
use crate::cli::printer::Printer;
use crate::cli::pulling;
use crate::cli::resolve;
use crate::cli::{household, start, talk};
use crate::engine::LoadOptions;
use crate::serve::{self, Config, Line, Log, News, Preset, ResponseStore};

/// Serves until told to stop.
pub(crate) fn run(args: &ServeArgs, printer: &Printer) -> anyhow::Result<ExitStatus> {
    let key = args.api_key.clone().filter(|key| !key.is_empty());
    let host = address_of(&args.host)?;
    if !host.is_loopback() && key.is_none() {
        if !args.no_api_key {
            return Err(Failure::error(
                format!("address '{host}': others than this machine could use the model"),
                "ask them for a key (--api-key KEY), or let everyone in (--no-api-key)",
            ));
        }
        printer.warn("everyone who can reach this address can use the model");
    }
    if args.has_many() {
        return many(args, host, key, printer);
    }
    let chosen = resolve::model(&args.load.model)?;
    for note in &chosen.settings.notes {
        printer.warn(note);
    }
    let aside = aside(args);
    let mut options = resolve::load_options(&args.load);
    let draft = draft::choose(&args.load, &chosen.index, &options)?;
    options = LoadOptions { sequences: args.parallel, embedding: true, draft, aside, ..options };
    let config = config(args, host, key, preset(args, &chosen), *printer);
    let load = {
        let printer = *printer;
        move || Ok(talk::load_chosen(&chosen, options, &printer)?)
    };
    let served = serve::run(config, load, &|news| tell(&news, printer));
    served.map_err(|error| explain(error, args.port))?;
    Ok(ExitStatus::Ok)
}

/// Serves several models, each loaded when somebody asks for it.
fn many(
    args: &ServeArgs,
    host: IpAddr,
    key: Option<String>,
    printer: &Printer,
) -> anyhow::Result<ExitStatus> {
    if args.name.is_some() {
        let what = "several models cannot have one name";
        return Err(Failure::error(
            what,
            "leave out --name: each is called as `airrun list` shows it",
        ));
    }
    let household = household::household(args, printer)?;
    let names: Vec<&str> =
        household.offers.iter().filter_map(|o| o.preset.name.as_deref()).collect();
    printer.detail(format_args!("models: {}", names.join(", ")));
    let config = config(args, host, key, Preset::default(), *printer);
    let served = serve::run_many(config, household, &|news| tell(&news, printer));
    served.map_err(|error| explain(error, args.port))?;
    Ok(ExitStatus::Ok)
}

fn tell(news: &News<'_>, printer: &Printer) {
    match news {
        News::Listening(address) => printer.say(format_args!("listening on http://{address}")),
        News::Ready(engine) => {
            printer.detail(engine.describe());
            engine.notes().iter().for_each(|note| printer.warn(note));
            start::introduce_server(engine, printer);
            printer
                .dim("ready: a page for browsers at /, OpenAI's protocol at /v1, Ollama's at /api");
        }
        News::Stopping => printer.dim("stopping; once more to stop at once"),
    }
}

fn config(
    args: &ServeArgs,
    host: IpAddr,
    api_key: Option<String>,
    preset: Preset,
    printer: Printer,
) -> Config {
    Config {
        log: log(args.log, printer),
        host,
        port: args.port,
        queue: args.queue as usize,
        api_key,
        host_names: args.host_name.clone(),
        cors: args.cors.clone(),
        preset,
        grammars: args.grammars,
        prompt_cache: args.keep.most(),
        responses: ResponseStore::new(args.store),
        pull: args.pull.then(pulling::puller),
        max_body: args.max_body,
        memory: aside(args),
        grace: Duration::from_secs(u64::from(args.grace)),
        linger: Duration::from_secs(u64::from(args.linger)),
        patience: Duration::from_secs(u64::from(args.timeout)),
        ping: Duration::from_secs(u64::from(args.ping)),
    }
}

/// The address that `host` names; of several, one of IPv4, which everybody can type.
fn address_of(host: &str) -> anyhow::Result<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    let hint = "--host takes an address of this machine, such as 127.0.0.1, or its name";
    let found: Vec<IpAddr> = (bare, 0)
        .to_socket_addrs()
        .map_err(|error| Failure::error(format!("host '{host}': {error}"), hint))?
        .map(|address| address.ip())
        .collect();
    let best = found.iter().find(|ip| ip.is_ipv4()).or(found.first()).copied();
    best.ok_or_else(|| Failure::error(format!("host '{host}': it has no address"), hint))
}

/// Where a line for each request goes: to stderr, as text or as JSON.
fn log(how: LogArg, printer: Printer) -> Option<Log> {
    match how {
        LogArg::Off => None,
        LogArg::Text => Some(Log::new(move |line| {
            let Line { method, path, status, seconds, warnings, .. } = line;
            let time = chrono::Local::now().format("%H:%M:%S");
            let told: String = warnings.iter().map(|warning| format!("; {warning}")).collect();
            printer.dim(format_args!("{time} {method} {path} {status}, {seconds:.2} s{told}"));
        })),
        LogArg::Json => Some(Log::new(move |line| {
            let Line { method, path, status, bytes, seconds, warnings } = line;
            let time = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
            let mut line = serde_json::json!({
                "time": time, "method": method, "path": path, "status": status, "bytes": bytes,
                "seconds": seconds,
            });
            if !warnings.is_empty() {
                line["warnings"] = warnings.clone().into();
            }
            printer.say(line);
        })),
    }
}

/// What to do where nobody can listen.
fn explain(error: anyhow::Error, port: u16) -> anyhow::Error {
    let io = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>());
    let hint = match io.map(io::Error::kind) {
        Some(io::ErrorKind::AddrInUse) => {
            let next = port.wrapping_add(1);
            format!(
                "another program listens there; --port {next} may be free, and --port 0 takes one that is"
            )
        }
        Some(io::ErrorKind::PermissionDenied) if port < 1024 => {
            "ports below 1024 are for the system; --port 8080 is not".to_owned()
        }
        Some(io::ErrorKind::AddrNotAvailable) => {
            "--host takes an address of this machine, such as 127.0.0.1".to_owned()
        }
        _ => return error,
    };
    Failure::error(exit::describe(&error), hint)
}
