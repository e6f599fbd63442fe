//! Writes small GGUF files for tests, right ones and, field by field, wrong ones. It checks
//! nothing.

/// Numbers of the value types in a GGUF file.
pub(crate) const U8: u32 = 0;
pub(crate) const U32: u32 = 4;
pub(crate) const I32: u32 = 5;
pub(crate) const F32: u32 = 6;
pub(crate) const STR: u32 = 8;
pub(crate) const ARRAY: u32 = 9;
pub(crate) const U64: u32 = 10;

/// A value as it goes into a file: its type and its bytes.
#[derive(Clone, Debug)]
pub(crate) struct Payload(pub(crate) u32, pub(crate) Vec<u8>);

/// An entry of the tensor table, with its data.
#[derive(Clone, Debug)]
pub(crate) struct Tensor {
    pub(crate) name: Vec<u8>,
    /// What the table says; `dims.len()` if `None`.
    pub(crate) n_dims: Option<u32>,
    pub(crate) dims: Vec<u64>,
    pub(crate) ty: u32,
    /// What the table says; the right offset if `None`.
    pub(crate) offset: Option<u64>,
    pub(crate) data: Vec<u8>,
}

/// A file to be written.
#[derive(Clone, Debug)]
pub(crate) struct Gguf {
    pub(crate) magic: [u8; 4],
    pub(crate) version: u32,
    /// What the header says; the right number if `None`.
    pub(crate) n_tensors: Option<u64>,
    pub(crate) n_keys: Option<u64>,
    pub(crate) keys: Vec<(Vec<u8>, Payload)>,
    pub(crate) tensors: Vec<Tensor>,
    pub(crate) alignment: u64,
}

pub(crate) fn u8(n: u8) -> Payload {
    Payload(U8, vec![n])
}

pub(crate) fn u32(n: u32) -> Payload {
    Payload(U32, n.to_le_bytes().to_vec())
}

pub(crate) fn u64(n: u64) -> Payload {
    Payload(U64, n.to_le_bytes().to_vec())
}

pub(crate) fn f32(x: f32) -> Payload {
    Payload(F32, x.to_le_bytes().to_vec())
}

pub(crate) fn str(text: &str) -> Payload {
    Payload(STR, string(text.as_bytes(), text.len() as u64))
}

/// A string whose length field says `len`.
pub(crate) fn string(text: &[u8], len: u64) -> Vec<u8> {
    [&len.to_le_bytes()[..], text].concat()
}

/// An array whose length field says `len`.
pub(crate) fn array(element: u32, len: u64, elements: &[u8]) -> Payload {
    Payload(ARRAY, [&element.to_le_bytes()[..], &len.to_le_bytes()[..], elements].concat())
}

pub(crate) fn strings(list: &[&str]) -> Payload {
    let all: Vec<u8> = list.iter().flat_map(|s| string(s.as_bytes(), s.len() as u64)).collect();
    array(STR, list.len() as u64, &all)
}

pub(crate) fn u32s(list: &[u32]) -> Payload {
    let all: Vec<u8> = list.iter().flat_map(|n| n.to_le_bytes()).collect();
    array(U32, list.len() as u64, &all)
}

pub(crate) fn i32s(list: &[i32]) -> Payload {
    let all: Vec<u8> = list.iter().flat_map(|n| n.to_le_bytes()).collect();
    array(I32, list.len() as u64, &all)
}

pub(crate) fn f32s(list: &[f32]) -> Payload {
    let all: Vec<u8> = list.iter().flat_map(|x| x.to_le_bytes()).collect();
    array(F32, list.len() as u64, &all)
}

impl Tensor {
    /// A tensor of F32 with small values.
    pub(crate) fn f32(name: &str, dims: &[u64]) -> Tensor {
        let n: u64 = dims.iter().product();
        let data = (0..n).flat_map(|i| ((i % 7) as f32 * 0.01).to_le_bytes()).collect();
        Tensor { name: name.into(), n_dims: None, dims: dims.to_vec(), ty: 0, offset: None, data }
    }

    /// A tensor of type `ty` with `len` bytes of zeros.
    pub(crate) fn of_type(name: &str, dims: &[u64], ty: u32, len: usize) -> Tensor {
        let (name, dims) = (name.into(), dims.to_vec());
        Tensor { name, n_dims: None, dims, ty, offset: None, data: vec![0; len] }
    }
}

impl Gguf {
    /// A file with nothing in it.
    pub(crate) fn new() -> Gguf {
        Gguf {
            magic: *b"GGUF",
            version: 3,
            n_tensors: None,
            n_keys: None,
            keys: Vec::new(),
            tensors: Vec::new(),
            alignment: 32,
        }
    }

    /// A model of one block that libllama can load: 16 wide, 2 heads, 8 tokens.
    pub(crate) fn llama() -> Gguf {
        let mut g = Gguf::new();
        g.set("general.architecture", str("llama"));
        g.set("general.name", str("tiny"));
        for (key, n) in [
            ("context_length", 64),
            ("embedding_length", 16),
            ("block_count", 1),
            ("feed_forward_length", 16),
            ("attention.head_count", 2),
            ("attention.head_count_kv", 1),
            ("rope.dimension_count", 8),
        ] {
            g.set(&format!("llama.{key}"), u32(n));
        }
        g.set("llama.attention.layer_norm_rms_epsilon", f32(1e-5));
        g.set("tokenizer.ggml.model", str("llama"));
        let tokens = ["<unk>", "<s>", "</s>", "a", "b", "c", "d", "e"];
        g.set("tokenizer.ggml.tokens", strings(&tokens));
        g.set("tokenizer.ggml.scores", f32s(&[0.0; 8]));
        g.set("tokenizer.ggml.token_type", i32s(&[2, 3, 3, 1, 1, 1, 1, 1]));
        g.set("tokenizer.ggml.bos_token_id", u32(1));
        g.set("tokenizer.ggml.eos_token_id", u32(2));
        for (name, dims) in [
            ("token_embd.weight", &[16, 8][..]),
            ("output_norm.weight", &[16]),
            ("output.weight", &[16, 8]),
            ("blk.0.attn_norm.weight", &[16]),
            ("blk.0.attn_q.weight", &[16, 16]),
            ("blk.0.attn_k.weight", &[16, 8]),
            ("blk.0.attn_v.weight", &[16, 8]),
            ("blk.0.attn_output.weight", &[16, 16]),
            ("blk.0.ffn_norm.weight", &[16]),
            ("blk.0.ffn_gate.weight", &[16, 16]),
            ("blk.0.ffn_up.weight", &[16, 16]),
            ("blk.0.ffn_down.weight", &[16, 16]),
        ] {
            g.tensors.push(Tensor::f32(name, dims));
        }
        g
    }

    /// Sets a key, or adds it.
    pub(crate) fn set(&mut self, key: &str, value: Payload) {
        match self.keys.iter_mut().find(|(k, _)| k == key.as_bytes()) {
            Some((_, old)) => *old = value,
            None => self.keys.push((key.into(), value)),
        }
    }

    /// Removes a key.
    pub(crate) fn unset(&mut self, key: &str) {
        self.keys.retain(|(k, _)| k != key.as_bytes());
    }

    /// The tensor of this name.
    pub(crate) fn tensor(&mut self, name: &str) -> &mut Tensor {
        let found = self.tensors.iter_mut().find(|t| t.name == name.as_bytes());
        found.unwrap_or_else(|| panic!("no tensor {name}"))
    }

    /// Everything before the tensor data, without padding.
    pub(crate) fn header(&self) -> Vec<u8> {
        let mut out = self.magic.to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(self.n_tensors.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        out.extend(self.n_keys.unwrap_or(self.keys.len() as u64).to_le_bytes());
        for (key, Payload(ty, bytes)) in &self.keys {
            out.extend(string(key, key.len() as u64));
            out.extend(ty.to_le_bytes());
            out.extend(bytes);
        }
        let mut offset = 0_u64;
        for t in &self.tensors {
            out.extend(string(&t.name, t.name.len() as u64));
            out.extend(t.n_dims.unwrap_or(t.dims.len() as u32).to_le_bytes());
            out.extend(t.dims.iter().flat_map(|n| n.to_le_bytes()));
            out.extend(t.ty.to_le_bytes());
            out.extend(t.offset.unwrap_or(offset).to_le_bytes());
            offset += (t.data.len() as u64).next_multiple_of(self.alignment);
        }
        out
    }

    /// The whole file.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = self.header();
        let align = usize::try_from(self.alignment).unwrap_or(32);
        for t in &self.tensors {
            out.resize(out.len().next_multiple_of(align), 0);
            out.extend(&t.data);
        }
        out
    }
}
