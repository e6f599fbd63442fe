//! What people type who come from llama.cpp, Ollama or LM Studio, and what it is here: a hint after a command line that is wrong.
//! Nothing of it is taken for what it is not: the command line stays wrong.

use std::ffi::OsString;
use std::path::Path;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::models;

/// Flags of others, and what to say of them.
const FLAGS: [(&[&str], &str); 23] = [
    (
        &["-ngl", "--n-gpu-layers", "--gpu-layers", "--num-gpu", "--gpu"],
        "airrun decides by itself what a GPU holds; --vram SIZE limits its memory, and --device cpu leaves it alone",
    ),
    (
        &["-hf", "-hfr", "--hf-repo"],
        "`airrun pull ORG/REPO` downloads a model, and ORG/REPO names it then",
    ),
    (&["-mu", "--model-url"], "`airrun pull ADDRESS` downloads a model from the Hugging Face hub"),
    (&["-cnv", "--conversation", "-i", "--interactive"], "`airrun chat MODEL` is the conversation"),
    (
        &["-no-cnv", "--no-conversation", "-st", "--single-turn"],
        "`airrun run MODEL PROMPT` gives one answer",
    ),
    (&["-sys", "--system-prompt"], "the system message is --system TEXT"),
    (&["-f", "--file", "-bf"], "a prompt in a file goes to stdin: airrun run MODEL < FILE"),
    (&["-e", "--escape"], "the shell makes line ends: airrun run MODEL $'two\\nlines'"),
    (
        &["--n-predict", "--predict", "--num-predict"],
        "the most tokens of an answer are -n N, or --max-tokens N",
    ),
    (
        &["--ctx-size", "--context", "--num-ctx", "--context-length"],
        "the context is -c N, or --ctx N",
    ),
    (&["--temperature"], "the temperature is --temp X"),
    (
        &["-b", "-ub", "--batch-size", "--ubatch-size"],
        "prompt tokens in a pass are --ubatch N; the plan chooses well by itself",
    ),
    (&["-tb", "--threads-batch"], "-t N is for prompts and answers alike"),
    (
        &["--mlock", "--no-mmap", "--mmap"],
        "airrun maps no weights: --ram SIZE is what they may take",
    ),
    (&["-fa", "--flash-attn"], "attention in one operation is --flash on, or off"),
    (
        &["-ctk", "-ctv", "--cache-type-k", "--cache-type-v"],
        "keys and values have one type, which is --kv f16, q8_0 or q4_0",
    ),
    (&["--rope-freq-base"], "the base of rotary positions is --rope-base N"),
    (
        &["-dev", "--main-gpu", "-mg", "--tensor-split", "-ts", "-sm", "--split-mode"],
        "the device is --device NAME: `airrun devices` lists them",
    ),
    (
        &["-ot", "--override-tensor", "--cpu-moe", "-cmoe", "--n-cpu-moe", "-ncmoe"],
        "what lives where is planned: `airrun plan MODEL` shows it",
    ),
    (
        &["--jinja", "--chat-template", "--chat-template-file"],
        "the model's own chat template is used; --raw goes without",
    ),
    (&["-np"], "requests that are computed together are --parallel N"),
    (&["-a", "--alias"], "the name that clients know the model by is --name NAME"),
    (&["--verbose-prompt", "--log-disable", "-lv"], "-v says more, and -q less"),
];

/// Commands of others, and what to say of them. `{}` is what follows.
const COMMANDS: [(&[&str], &str); 9] = [
    (&["ls", "models"], "`airrun list` lists the models"),
    (&["show", "info"], "`airrun inspect {}` shows what is in a model's file"),
    (&["get", "download", "fetch"], "`airrun pull {}` downloads a model"),
    (&["generate", "complete", "ask", "prompt"], "`airrun run MODEL PROMPT` gives one answer"),
    (&["server", "start"], "`airrun serve {}` serves a model"),
    (&["rm", "delete", "remove"], "models are files: `airrun list --json` shows where they are"),
    (
        &["ps", "stop", "load", "unload"],
        "a model is loaded as long as the command that uses it runs",
    ),
    (
        &["create", "cp", "push"],
        "models are files; flags may have their values in a configuration: see `airrun man`",
    ),
    (&["convert"], "airrun takes GGUF files; `airrun quantize IN OUT` makes smaller ones of them"),
];

/// A flag of several letters after one dash, as llama.cpp has them. Here each letter is a flag, and what an error says of them misleads:
/// `-ngl` would be an odd number for `-n`, `-hf` a wish for help. For command lines that are not obeyed.
pub(super) fn foreign(typed: impl IntoIterator<Item = OsString>) -> Option<(String, &'static str)> {
    let words = typed.into_iter().map(|word| word.to_string_lossy().into_owned());
    let flags = words.take_while(|word| word != "--");
    let long = |word: &String| word.len() > 2 && !word.starts_with("--");
    flags.filter(long).find_map(|word| known(&word).map(|text| (word.clone(), text)))
}

/// What to say of a flag of another program.
fn known(word: &str) -> Option<&'static str> {
    let name = word.split('=').next().unwrap_or_default().replace('_', "-");
    // A number may follow without a space: -ngl99.
    let bare = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let is = |one: &&str| *one == name || *one == bare;
    FLAGS.iter().find(|(names, _)| names.iter().any(is)).map(|&(_, text)| text)
}

/// What to say after `error` of a command line; nothing where its own words must do. `typed` is without the program's name.
pub(super) fn hint(
    error: &clap::Error,
    typed: impl IntoIterator<Item = OsString>,
) -> Option<String> {
    if !error.use_stderr() {
        return None;
    }
    let words: Vec<String> =
        typed.into_iter().map(|word| word.to_string_lossy().into_owned()).collect();
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let unknown = context(error, ContextKind::InvalidSubcommand)?;
            of_command(&unknown, &words)
        }
        ErrorKind::MissingRequiredArgument => {
            let needs_model = error.to_string().contains("<MODEL>");
            let list = "`airrun list` lists the models on this machine; a path to a .gguf file will do, too";
            of_flags(&words).or_else(|| needs_model.then(|| list.to_owned()))
        }
        _ => of_flags(&words),
    }
}

fn context(error: &clap::Error, kind: ContextKind) -> Option<String> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text.clone()),
        ContextValue::Strings(texts) => texts.first().cloned(),
        _ => None,
    }
}

/// A word where a command should be: another program's command, or a model.
fn of_command(unknown: &str, words: &[String]) -> Option<String> {
    let after = words.iter().skip_while(|word| *word != unknown).nth(1);
    if let Some((_, text)) = COMMANDS.iter().find(|(names, _)| names.contains(&unknown)) {
        return Some(text.replace("{}", after.map_or("MODEL", String::as_str)));
    }
    let path = Path::new(unknown);
    let is_model = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf"))
        || path.is_file()
        || models::find(path).is_ok();
    is_model.then(|| format!("`airrun chat {unknown}` begins a conversation"))
}

/// The first flag that another program would know.
fn of_flags(words: &[String]) -> Option<String> {
    let name = |word: &str| word.split('=').next().unwrap_or_default().to_owned();
    let is_model = |word: &&String| matches!(name(word).as_str(), "-m" | "--model");
    if let Some(flag) = words.iter().find(is_model) {
        let after = words.iter().skip_while(|word| *word != flag).nth(1);
        let model = match flag.split_once('=') {
            Some((_, model)) => model,
            None => after.map_or("MODEL", String::as_str),
        };
        let command = words.first().filter(|word| !word.starts_with('-'));
        let command = command.map_or("chat", String::as_str);
        return Some(format!("the model goes without a flag: airrun {command} {model}"));
    }
    words.iter().find_map(|word| known(word)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args;

    fn said(line: &str) -> String {
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        let all = std::iter::once(OsString::from("airrun")).chain(words.clone());
        let error = args::command().try_get_matches_from(all).unwrap_err();
        hint(&error, words).unwrap_or_default()
    }

    #[test]
    fn habits_are_answered() {
        for (line, want) in [
            ("-m a.gguf", "airrun chat a.gguf"),
            ("run -m a.gguf -p Hi", "airrun run a.gguf"),
            ("chat --model=a.gguf", "airrun chat a.gguf"),
            ("a.gguf", "airrun chat a.gguf"),
            ("dir/a.GGUF --temp 0", "airrun chat dir/a.GGUF"),
            ("run a.gguf Hi -ngl 99", "--vram"),
            ("run a.gguf Hi -ngl99", "--vram"),
            ("run a.gguf Hi --n-gpu-layers=99", "--vram"),
            ("run a.gguf -cnv", "airrun chat MODEL"),
            ("run a.gguf -f prompt.txt", "< FILE"),
            ("chat a.gguf --ctx-size 99", "-c N"),
            ("chat a.gguf --num_ctx 99", "-c N"),
            ("serve a.gguf -np 4", "--parallel"),
            ("show a.gguf", "airrun inspect a.gguf"),
            ("rm a.gguf", "airrun list --json"),
            ("chat", "airrun list"),
        ] {
            assert!(said(line).contains(want), "{line}: {}", said(line));
        }
        for (line, want) in [("run a.gguf -hf a/b", "-hf"), ("run a.gguf -ngl99", "-ngl99")] {
            let words = line.split_whitespace().map(OsString::from);
            assert_eq!(foreign(words).unwrap().0, want);
        }
        for line in ["run a.gguf Hi -n5", "run a.gguf -p --hf-repo", "run a.gguf -- -hf"] {
            assert_eq!(foreign(line.split_whitespace().map(OsString::from)), None, "{line}");
        }
        for line in ["run a.gguf Hi --temp -1", "nonsense", "list --alll"] {
            assert_eq!(said(line), "", "{line}");
        }
    }
}
