//! What each command's help ends with: examples to copy, and a word that finds more.

/// Examples of the program as a whole.
pub(super) const PROGRAM: &str = "\
Examples:
  airrun chat model.gguf      talk; what does not fit in memory streams
  airrun plan model.gguf      where its blocks will live, and how fast that is
  airrun serve model.gguf     for other programs, and a page for your browser
  airrun doctor               what this machine has, and what makes it slow
  airrun run model.gguf 'Why is the sky blue?' > answer.txt

Flags may have their defaults in ~/.config/airrun/config.toml: see `airrun man`.";

/// What is common to commands with a model that runs.
const TABLE: [(&str, &str); 14] = [
    (
        "chat",
        "\
Examples:
  airrun chat model.gguf
  airrun chat model.gguf --ram 8G -c 8192 --system 'Answer in one sentence.'
  echo 'Name three rivers.' | airrun chat model.gguf --temp 0

In a conversation, /help lists what else there is.",
    ),
    (
        "run",
        "\
Examples:
  airrun run model.gguf 'Translate to French: good morning'
  git diff | airrun run model.gguf -n 200 > message.txt
  airrun run model.gguf --raw 'Once upon a time' --seed 7",
    ),
    (
        "batch",
        "\
Examples:
  airrun batch model.gguf prompts.jsonl -o answers.jsonl
  airrun batch model.gguf batch.jsonl -o out.jsonl --format openai -n 300
  echo '{\"prompt\": \"Name a river.\"}' | airrun batch model.gguf - -o -

A line is {\"prompt\": TEXT} or {\"messages\": [...]}, with settings of its own, or
as OpenAI's batches have it. Interrupted, the same command goes on.",
    ),
    (
        "bench",
        "\
Examples:
  airrun bench model.gguf
  airrun bench model.gguf --ram 4G -p 0 -n 32 -r 5
  airrun bench model.gguf --stream always --json > runs.jsonl",
    ),
    (
        "list",
        "\
Examples:
  airrun list
  airrun list --json | jq -r '.[].name'
  AIRRUN_MODELS=/data/models airrun list",
    ),
    (
        "pull",
        "\
Examples:
  airrun pull org/repo
  airrun pull org/repo:Q4_K_M
  HF_ENDPOINT=https://mirror.example airrun pull org/repo",
    ),
    (
        "quantize",
        "\
Examples:
  airrun quantize model-f16.gguf model-q4.gguf --type q4_k_m
  airrun quantize model-f16.gguf model.gguf --type auto",
    ),
    (
        "devices",
        "\
Examples:
  airrun devices
  airrun devices --json | jq '.devices[].upload'",
    ),
    (
        "inspect",
        "\
Examples:
  airrun inspect model.gguf
  airrun inspect model.gguf --blocks
  airrun inspect model-00001-of-00005.gguf --tensors --json",
    ),
    (
        "plan",
        "\
Examples:
  airrun plan model.gguf
  airrun plan model.gguf --ram 16G -c 32768
  airrun plan model.gguf --json | jq .",
    ),
    (
        "logits",
        "\
Examples:
  airrun logits model.gguf --tokens 1,2,3
  airrun logits model.gguf --tokens 1,2,3 --stream always --json",
    ),
    (
        "doctor",
        "\
Examples:
  airrun doctor
  airrun doctor --json | jq '.findings[] | select(.level == \"slow\")'",
    ),
    (
        "completions",
        "\
Examples:
  airrun completions bash > ~/.local/share/bash-completion/completions/airrun
  airrun completions zsh > ~/.zfunc/_airrun
  airrun completions fish > ~/.config/fish/completions/airrun.fish",
    ),
    (
        "man",
        "\
Examples:
  airrun man | man -l -
  airrun man --dir ~/.local/share/man/man1",
    ),
];

/// The examples of a command; none for one that needs no explanation.
pub(super) fn of(command: &str) -> Option<&'static str> {
    TABLE.iter().find(|(name, _)| *name == command).map(|(_, text)| *text)
}
