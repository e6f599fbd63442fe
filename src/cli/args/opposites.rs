//! For each switch, another that turns it off: `--no-raw` for `--raw`, `--repack` for `--no-repack`. A configuration file may have
//! turned it on. They are not in the help, which would be twice as long.

use clap::{Arg, ArgAction, Command};

/// What the ids of such switches begin with; no other's does.
const PREFIX: &str = "opposite of ";

/// Whether `arg` turns another off.
pub(crate) fn is_opposite(arg: &Arg) -> bool {
    arg.get_id().as_str().starts_with(PREFIX)
}

/// Whether `other` turns `arg` off.
pub(crate) fn is_opposite_of(other: &Arg, arg: &Arg) -> bool {
    other.get_id().as_str().strip_prefix(PREFIX) == Some(arg.get_id().as_str())
}

/// `command` and its subcommands with the opposites of all their switches, but for those whose name means something else.
pub(super) fn with_opposites(command: Command) -> Command {
    let longs: Vec<String> =
        command.get_arguments().filter_map(Arg::get_long).map(str::to_owned).collect();
    let opposite = |arg: &Arg| {
        let long = arg.get_long().filter(|_| matches!(arg.get_action(), ArgAction::SetTrue))?;
        let name = match long.strip_prefix("no-") {
            Some(rest) => rest.to_owned(),
            None => format!("no-{long}"),
        };
        let id = arg.get_id().as_str();
        let new = Arg::new(format!("{PREFIX}{id}")).long(name.clone()).action(ArgAction::SetTrue);
        let new = new.hide(true).global(arg.is_global_set()).overrides_with(id.to_owned());
        (!longs.contains(&name)).then_some(new)
    };
    let opposites: Vec<Arg> = command.get_arguments().filter_map(opposite).collect();
    let names: Vec<String> =
        command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    names
        .iter()
        .fold(command.args(opposites), |command, name| command.mut_subcommand(name, with_opposites))
}
