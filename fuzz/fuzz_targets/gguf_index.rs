//! Any bytes as a model file: an index or an error, whatever is asked of it; no panic, no memory
//! beyond the bytes given.
#![no_main]

use std::path::Path;

use airrun::gguf::Index;
use airrun::units::Bytes;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // The first byte moves the end of the file: headers are checked against it, and few inputs
    // bring their tensor data.
    let Some((&more, header)) = data.split_first() else { return };
    let len = Bytes(header.len() as u64 + (u64::from(more) << 12));
    let Ok(index) = Index::from_reader(Path::new("fuzz.gguf"), header, len) else { return };
    drop(index.check_model());
    drop((index.name(), index.file_type_name(), index.tokenizer(), index.chat_template()));
    for tensor in &index.tensors {
        assert!(tensor.offset + tensor.len.0 <= len.0);
        let _ = (index.experts(tensor), tensor.role(), tensor.elements());
    }
    assert_eq!(index.blocks.iter().map(|b| b.tensors.len()).sum::<usize>(), {
        index.tensors.iter().filter(|t| index.block(t.place).is_some()).count()
    });
});
