//! Heads that guess tokens ahead in files of their own (EAGLE3, DFlash): what one says of itself and what it wants of the model that it
//! guesses for, as far as libllama asserts it or takes it for granted.

use super::index::{Index, TensorInfo};
use super::value::Value;

/// Blocks of the model whose input a head of EAGLE3 reads, and the most that one of DFlash does.
const EAGLE3_LAYERS: usize = 3;
const MOST_LAYERS: usize = 16;

/// Architectures of heads.
const EAGLE3: &str = "eagle3";
const DFLASH: &str = "dflash";

/// Architectures whose graphs hand out what goes into their blocks: others would end the program.
const HANDING_OUT: [&str; 9] = [
    "gemma4",
    "gpt-oss",
    "lfm2",
    "llama",
    "minimax-m2",
    "qwen3",
    "qwen35",
    "qwen3moe",
    "qwen3next",
];

/// ggml's number for whole numbers of 64 bits.
const I64: u32 = 27;

/// Which of a model's tokens each of a head's own tokens is.
const TOKENS: &str = "d2t";

/// Which of a model's blocks a head reads.
const LAYERS_READ: &str = "target_layers";

/// A head that can guess for a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fit {
    /// The model's blocks whose input it reads.
    pub layers: Vec<u32>,
    /// How it fills in several tokens at a time, if it does not guess one by one.
    pub blanks: Option<Blanks>,
}

/// What a head fills in: a block of a token that is known, and of blanks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blanks {
    /// Tokens of a block.
    pub size: u32,
    /// The token that stands for those that are not known.
    pub token: i32,
}

impl Index {
    /// Whether it is a head that guesses tokens for another model.
    pub fn is_head(&self) -> bool {
        [EAGLE3, DFLASH].contains(&self.architecture())
    }

    /// Whether it is a head of a kind that is used; else why not.
    ///
    /// # Errors
    ///
    /// By its architecture, it is none.
    pub fn check_kind_of_head(&self) -> Result<(), String> {
        match self.architecture() {
            EAGLE3 | DFLASH => Ok(()),
            other => Err(format!("heads of architecture '{other}' are not used")),
        }
    }

    /// How many of a model's blocks this head says that it reads.
    pub fn n_layers_read(&self) -> usize {
        match self.arch(LAYERS_READ) {
            Some(Value::Array(all)) => all.len().min(MOST_LAYERS),
            _ => 0,
        }
    }

    /// The blocks of `target` whose input this head, which was checked by itself, reads to guess its tokens.
    ///
    /// # Errors
    ///
    /// It is none that is used, it is not what libllama takes for granted, or it was made for another model.
    pub fn head_for(&self, target: &Index) -> Result<Fit, String> {
        self.check_kind_of_head()?;
        let fills_in = self.architecture() == DFLASH;
        let blanks = match fills_in {
            true => Some(self.check_dflash()?),
            false => self.check_eagle3().map(|()| None)?,
        };
        self.check_tokens()?;
        let arch = target.architecture();
        if !HANDING_OUT.contains(&arch) {
            return Err(format!("models of architecture '{arch}' hand nothing to such heads"));
        }
        let width = target.arch_uint("embedding_length").unwrap_or(0);
        // A head of DFlash is as wide as its model.
        let key = if fills_in { "embedding_length" } else { "target_hidden_size" };
        let reads = self.arch_uint(key).unwrap_or(0);
        if reads != width {
            return Err(format!(
                "it was made for a model of width {reads}, and this one has {width}"
            ));
        }
        let (own, other) = (self.n_tokens(), target.n_tokens());
        if own != other {
            return Err(format!("it was made for {own} tokens, and the model has {other}"));
        }
        self.check_borrowed(target)?;
        let layers = self.layers(target.blocks.len() as u64)?;
        Ok(Fit { layers, blanks })
    }

    /// Which of the model's tokens each of this head's own is, if they are not the same: a table of as many numbers of 64 bits.
    pub fn head_tokens(&self) -> Option<&TensorInfo> {
        self.tensors.iter().find(|tensor| tensor.name == TOKENS)
    }

    /// Tokens of the vocabulary; of a file without one, those that it says there are.
    pub fn n_tokens(&self) -> u64 {
        match self.tokens() {
            Some(tokens) => tokens.len() as u64,
            None => self.arch_uint("vocab_size").unwrap_or(0),
        }
    }

    /// What libllama takes for granted of a head of EAGLE3, whatever the model.
    fn check_eagle3(&self) -> Result<(), String> {
        let n_blocks = self.arch_uint("block_count").unwrap_or(0);
        if n_blocks != 1 || self.blocks.len() != 1 || !self.heads.is_empty() {
            return Err(format!("such a head is one block, and the file has {n_blocks}"));
        }
        self.check_attention()?;
        let width = self.arch_uint("embedding_length");
        let out = self.arch("embedding_length_out");
        if out.is_some() && out.and_then(Value::uint) != width {
            return Err("what it hands to itself is of another width".into());
        }
        Ok(())
    }

    /// Its blocks' attention, and that it has no head itself.
    pub(super) fn check_attention(&self) -> Result<(), String> {
        if self.arch_uint("nextn_predict_layers").unwrap_or(0) > 0 {
            return Err("it is said to have a head of its own".into());
        }
        for key in ["attention.head_count", "attention.head_count_kv"] {
            let n = match self.arch(key) {
                Some(Value::Array(each)) => each.get(0).and_then(|n| n.uint()),
                Some(n) => n.uint(),
                None if key.ends_with("_kv") => Some(1),
                None => None,
            };
            if n.is_none_or(|n| n == 0) {
                return Err(format!("'{key}' says that it has no heads of attention"));
            }
        }
        Ok(())
    }

    /// Its own tokens, and its embedding and output of its own if it has them.
    fn check_tokens(&self) -> Result<(), String> {
        let n_tokens = self.n_tokens();
        let rows = |name: &str| self.matrix(name).map(|shape| shape[1]);
        if let Some(n) = rows("token_embd.weight").filter(|&n| n < n_tokens) {
            return Err(format!("its embedding has {n} of {n_tokens} tokens"));
        }
        let Some(table) = self.head_tokens() else { return Ok(()) };
        let n = table.elements();
        if table.ty.0 != I64 || table.shape.first() != Some(&n) {
            return Err(format!("'{TOKENS}' is no list of whole numbers of 64 bits"));
        }
        if n == 0 || n > n_tokens {
            return Err(format!("'{TOKENS}' has {n} numbers for {n_tokens} tokens"));
        }
        match rows("output.weight") {
            Some(rows) if rows != n => {
                Err(format!("its output has {rows} rows, and '{TOKENS}' has {n} numbers"))
            }
            _ => Ok(()),
        }
    }

    /// What it lacks and takes of the model: the embedding, the output.
    fn check_borrowed(&self, target: &Index) -> Result<(), String> {
        let width = self.arch_uint("embedding_length").unwrap_or(0);
        let n_tokens = self.n_tokens();
        let embedding = target.matrix("token_embd.weight");
        let output = target.matrix("output.weight").or(embedding);
        let fits = |shape: Option<[u64; 2]>, least: u64, most: u64| {
            shape.is_some_and(|[n, rows]| n == width && (least..=most).contains(&rows))
        };
        let own = |name: &str| self.matrix(name).is_some();
        if !own("token_embd.weight") && !fits(embedding, n_tokens, u64::MAX) {
            return Err("it has no embedding, and the model's is none for it".into());
        }
        // One of DFlash takes its own embedding for the output before it borrows one.
        let is_tied = self.architecture() == DFLASH && own("token_embd.weight");
        if own("output.weight") || is_tied {
            return Ok(());
        }
        let outputs = self.head_tokens().map_or(n_tokens, TensorInfo::elements);
        if outputs != n_tokens || !fits(output, n_tokens, n_tokens) {
            return Err("it has no output, and the model's is none for it".into());
        }
        Ok(())
    }

    /// The length and the number of the rows of a matrix.
    fn matrix(&self, name: &str) -> Option<[u64; 2]> {
        let tensor = self.tensors.iter().find(|tensor| tensor.name == name)?;
        let side = |i: usize| tensor.shape.get(i).copied().unwrap_or(1);
        Some([side(0), side(1)])
    }

    /// The blocks whose input it reads, of a model that has `n_blocks`.
    fn layers(&self, n_blocks: u64) -> Result<Vec<u32>, String> {
        let Some(Value::Array(all)) = self.arch(LAYERS_READ) else {
            return Err(format!("it does not say which blocks it reads ('{LAYERS_READ}')"));
        };
        let (fits, how_many) = match self.architecture() {
            EAGLE3 => (all.len() == EAGLE3_LAYERS, format!("{EAGLE3_LAYERS}")),
            _ => ((1..=MOST_LAYERS).contains(&all.len()), format!("1 to {MOST_LAYERS}")),
        };
        let wrong = || format!("'{LAYERS_READ}' are not {how_many} blocks");
        if !fits {
            return Err(wrong());
        }
        let layer = |value: Value| {
            let n = value.uint().ok_or_else(wrong)?;
            if n >= n_blocks {
                return Err(format!("it reads block {n}, and the model has {n_blocks}"));
            }
            u32::try_from(n).map_err(|_| wrong())
        };
        all.iter().map(layer).collect()
    }
}
