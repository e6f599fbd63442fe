//! The tokenizer of a model's file beside one of the user's own: what they disagree about.

use std::path::Path;
use std::sync::Arc;

use super::loading::Loading;
use super::options::LoadOptions;
use crate::engine::error::model_name;
use crate::engine::{Error, threads};
use crate::ggml::Token;
use crate::gguf::Index;
use crate::plan::Plan;
use crate::stream::Monitor;
use crate::talk::Vocab;
use crate::talk::tokenizer::OwnTokenizer;

/// A text that both tokenizers cut.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Compared {
    /// What kind of text.
    pub kind: &'static str,
    /// The text.
    pub text: &'static str,
    /// The file's tokens.
    pub file: Vec<Token>,
    /// The tokenizer's own.
    pub own: Vec<Token>,
}

impl Compared {
    /// Whether they agree.
    pub fn same(&self) -> bool {
        self.file == self.own
    }

    /// The number of the first token that differs.
    pub fn first_difference(&self) -> Option<usize> {
        let both = self.file.iter().zip(&self.own);
        let at = both.take_while(|(a, b)| a == b).count();
        (!self.same()).then_some(at)
    }
}

/// Two tokenizers side by side: the file's, and the user's own.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Comparison {
    /// Tokens of each.
    pub n_tokens: [usize; 2],
    /// Merges of each, where it has such.
    pub n_merges: [Option<usize>; 2],
    /// Tokens that are others at the same number; `None` where they cannot be compared.
    pub differing: Option<usize>,
    /// What each puts before a text.
    pub bos: [Option<Token>; 2],
    /// The texts.
    pub texts: Vec<Compared>,
}

impl Comparison {
    /// Whether they are the same for all that was tried. More tokens in the file are none of a tokenizer's: models are padded.
    pub fn same(&self) -> bool {
        let merges = matches!(self.n_merges, [Some(a), Some(b)] if a != b);
        let tokens = self.differing.is_some_and(|n| n > 0) || self.n_tokens[1] > self.n_tokens[0];
        !merges && !tokens && self.texts.iter().all(Compared::same)
    }
}

/// Cuts a set of texts with the tokenizer of a model's file and with the one at `path`. No weights are loaded.
///
/// # Errors
///
/// A file without a tokenizer, or a `path` that is none.
pub fn compare(index: &Arc<Index>, path: &Path) -> Result<Comparison, Error> {
    let own = OwnTokenizer::open(path)?;
    index.check_model()?;
    let threads = threads::pool(1, index)?;
    let (plan, monitor, options) =
        (Plan::hollow(index, 1), Arc::new(Monitor::default()), LoadOptions::default());
    let loading = Loading::for_cpu(index, &plan, &options, &threads, &monitor);
    let (model, _device) = loading.hollow()?;
    let vocab = Vocab::of(Arc::new(model), None);
    if !vocab.reads_text() {
        return Err(Error::NoTokenizer { model: model_name(index) });
    }
    let mut texts = Vec::with_capacity(TEXTS.len());
    for (kind, text) in TEXTS {
        let file = vocab.tokenize(text, false, true)?;
        texts.push(Compared { kind, text, file, own: own.tokenize(text, false, true)? });
    }
    let merges = index.meta_array("tokenizer.ggml.merges").map(crate::gguf::Array::len);
    Ok(Comparison {
        n_tokens: [vocab.len(), own.len()],
        n_merges: [merges, own.n_merges()],
        differing: own.differing(index).map(|d| d.0),
        bos: [vocab.bos().filter(|_| vocab.adds_bos()), own.bos()],
        texts,
    })
}

/// What tokenizers disagree about: how digits are grouped, blanks counted, scripts cut, control tokens read.
const TEXTS: [(&str, &str); 24] = [
    ("words", "The quick brown fox jumps over the lazy dog."),
    ("capitals", "HELLO World iPhone McDonald's DON'T we'LL"),
    ("contractions", "I'm you're he'd she'll they've it's"),
    ("punctuation", "\"Well...\" -- (yes!?) [no]; {maybe}: <tag/> #1 @me $5 100% a_b"),
    ("digits", "7 42 365 2024 31415 1000000 3.14159 1,234,567 0x1F 1e-9"),
    ("blanks", "a  b   c    d        e"),
    ("leading blanks", "   three before, two after  "),
    ("line ends", "one\ntwo\n\nthree\n\n\nfour\r\nfive\r"),
    ("tabs", "\tone\t\ttwo\n\t\tthree"),
    ("Python", "def f(x: int) -> int:\n    if x > 1:\n        return x * f(x - 1)\n    return 1\n"),
    ("C", "int main(void) { printf(\"%d\\n\", a[i] & ~0x0F); return 0; }"),
    ("JSON", "{\"key\": [1, 2.5, true, null], \"nested\": {\"a\": \"b\"}}"),
    ("German", "Größe, Straße, überfließend, Äpfel"),
    ("French", "Ça va ? L'été dernier, où étais-tu ?"),
    ("Russian", "Привет, как дела? Хорошо."),
    ("Greek", "Γειά σου, τι κάνεις;"),
    ("Chinese", "你好，世界！今天天气很好。"),
    ("Japanese", "こんにちは、世界。カタカナ"),
    ("Korean", "안녕하세요 세계"),
    ("Arabic", "مرحبا بالعالم"),
    ("Hindi", "नमस्ते दुनिया"),
    ("emoji", "🦀 👍🏽 👨‍👩‍👧 🇩🇪 ❤️"),
    ("combined marks", "e\u{301} n\u{303} a\u{30a} ﬁ Ⅷ ½"),
    (
        "control tokens",
        "<|im_start|>user\nHi<|im_end|>\n<s>[INST] x [/INST]</s><|endoftext|><|eot_id|>",
    ),
];
