//! The table of tensor types in `gguf` against ggml itself, number by number.
#![allow(unsafe_code)]

use std::ffi::CStr;

use airrun::gguf::GgmlType;

#[test]
fn the_table_of_types_is_that_of_ggml() {
    assert_eq!(GgmlType::COUNT, ggml_sys::GGML_TYPE_COUNT);
    for number in 0..GgmlType::COUNT {
        let ty = GgmlType(number);
        // SAFETY: numbers below GGML_TYPE_COUNT index ggml's own table, and these functions only
        // read it.
        let (elements, bytes, name) = unsafe {
            let number = number as ggml_sys::ggml_type;
            let name = ggml_sys::ggml_type_name(number);
            let name = (!name.is_null()).then(|| CStr::from_ptr(name).to_string_lossy());
            (ggml_sys::ggml_blck_size(number), ggml_sys::ggml_type_size(number), name)
        };
        assert_eq!(ty.block_elements(), elements as u64, "type {number}");
        assert_eq!(ty.block_bytes().usize(), bytes, "type {number}");
        if let (Some(ours), Some(theirs)) = (ty.name(), name) {
            assert!(theirs.eq_ignore_ascii_case(ours), "type {number}: {ours}, {theirs}");
        }
    }
}
