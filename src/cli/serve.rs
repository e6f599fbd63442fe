//! `airrun serve`: a model for other programs, over HTTP.

use std::time::Duration;

use crate::cli::args::serve::ServeArgs;
use crate::cli::exit::{ExitStatus, Failure};
use crate::cli::printer::Printer;
use crate::cli::{resolve, talk};
use crate::engine::LoadOptions;
use crate::serve::{self, Config, News};

/// Serves until told to stop.
pub(crate) fn run(args: &ServeArgs, printer: &Printer) -> anyhow::Result<ExitStatus> {
    let key = args.api_key.clone().filter(|key| !key.is_empty());
    if !args.host.is_loopback() && key.is_none() {
        if !args.no_api_key {
            return Err(Failure::error(
                format!("address '{}': others than this machine could use the model", args.host),
                "ask them for a key (--api-key KEY), or let everyone in (--no-api-key)",
            ));
        }
        printer.warn("everyone who can reach this address can use the model");
    }
    let config = Config {
        host: args.host,
        port: args.port,
        queue: args.queue as usize,
        api_key: key,
        cors: args.cors.clone(),
        name: args.name.clone(),
        system: args.system.clone(),
        max_body: args.max_body,
        grace: Duration::from_secs(u64::from(args.grace)),
        patience: Duration::from_secs(u64::from(args.timeout)),
        ping: Duration::from_secs(u64::from(args.ping)),
    };
    let index = resolve::model(&args.load.model)?.index;
    let options = LoadOptions {
        sequences: args.parallel,
        embedding: true,
        ..resolve::load_options(&args.load)
    };
    let load = {
        let printer = *printer;
        move || Ok(talk::load(index, &options, &printer)?)
    };
    let tell = |news: News<'_>| match news {
        News::Listening(address) => printer.say(format_args!("listening on http://{address}")),
        News::Ready(engine) => printer.detail(engine.describe()),
        News::Stopping => printer.dim("stopping; once more to stop at once"),
    };
    serve::run(config, load, &tell)?;
    Ok(ExitStatus::Ok)
}
