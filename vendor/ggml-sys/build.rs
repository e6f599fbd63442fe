//! Generates the bindings from the headers of the pinned `llama-cpp-sys-2`, which has already built the libraries; compiles the
//! functions that its C interface lacks, and those that must not be as they are: see the headers of `SHIMS`.

use std::path::{Path, PathBuf};
use std::{env, fs};

/// What is compiled here: a header and a source of C++ each.
const SHIMS: [&str; 3] = ["missing", "caught", "words"];

/// What caught.h has instead.
const THROWING: [&str; 16] = [
    "model_load_from_file_ptr",
    "init_from_model",
    "model_quantize",
    "tokenize",
    "token_to_piece",
    "encode",
    "decode",
    "set_embeddings",
    "memory_clear",
    "memory_seq_rm",
    "memory_seq_cp",
    "sampler_chain_init",
    "sampler_chain_add",
    "sampler_accept",
    "sampler_apply",
    "sampler_clone",
];

fn main() {
    println!("cargo:rerun-if-changed=wrapper.h");
    println!("cargo:rerun-if-changed=build.rs");
    for shim in SHIMS {
        println!("cargo:rerun-if-changed={shim}.h");
        println!("cargo:rerun-if-changed={shim}.cpp");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    if env::var_os("CARGO_CFG_BINDINGS_ONLY").is_some() {
        return borrow_bindings(&out);
    }
    let source = llama_source();
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .includes(["include", "ggml/include", "ggml/src", "src"].map(|dir| source.join(dir)))
        .files(SHIMS.map(|shim| format!("{shim}.cpp")))
        // The headers of ggml and libllama have functions that not every file uses.
        .flag_if_supported("-Wno-unused-function")
        .compile("ggml_sys_missing");
    let include = |dir: &str| format!("-I{}", source.join(dir).display());
    let bindings = bindgen::Builder::default()
        .header("wrapper.h")
        .clang_args(["..", "include", "ggml/include", "ggml/src"].map(include))
        .clang_args(["-x", "c", "-std=c11"])
        .allowlist_function("(ggml|gguf|llama)_.*")
        .allowlist_type("(ggml|gguf|llama)_.*")
        .allowlist_var("(GGML|GGUF|LLAMA)_.*")
        // Whoever calls these calls their namesakes of caught.h, which do not throw.
        .blocklist_function(THROWING.map(|name| format!("llama_{name}")).join("|"))
        // Static inline helpers and C++-only sets of ggml-impl.h: nothing here calls them.
        .blocklist_function("ggml_(bitset|hash|up|are_same|aligned|print|critical|op_is|impl).*")
        .blocklist_function("ggml_compute_.*|ggml_(fp32|fp16|e8m0|ue4m3|bf16)_to_.*|ggml_lookup_.*")
        // C's stream is passed on by its address: what it is made of is its library's, and differs between systems.
        .blocklist_type("_IO_FILE")
        .raw_line("pub enum _IO_FILE {}")
        .prepend_enum_name(false)
        .derive_default(true)
        .layout_tests(true)
        .generate_comments(false)
        .generate()
        .expect("bindgen failed on the headers of llama-cpp-sys-2");
    bindings.write_to_file(out.join("bindings.rs")).expect("cannot write bindings.rs");
}

/// To check and not to run: nothing of ggml is compiled, and the bindings are those that were made for this machine, whose path is in
/// AIRRUN_BINDINGS. On a system of the same word length they are right but for the sizes of C's `long`.
fn borrow_bindings(out: &Path) {
    println!("cargo:rerun-if-env-changed=AIRRUN_BINDINGS");
    let from =
        env::var_os("AIRRUN_BINDINGS").expect("AIRRUN_BINDINGS names bindings.rs of a build");
    fs::copy(&from, out.join("bindings.rs"))
        .unwrap_or_else(|e| panic!("cannot copy {}: {e}", Path::new(&from).display()));
}

/// The llama.cpp source tree inside the pinned crate, as recorded in the CMake cache of its build.
fn llama_source() -> PathBuf {
    let cmake_dir = env::var("DEP_LLAMA_GGML_CMAKE_DIR")
        .expect("llama-cpp-sys-2 did not say where it built ggml");
    let out = Path::new(&cmake_dir)
        .ancestors()
        .nth(2)
        .expect("unexpected layout of llama-cpp-sys-2's output");
    let cache = out.join("build/CMakeCache.txt");
    let text = fs::read_to_string(&cache)
        .unwrap_or_else(|e| panic!("cannot read {}: {e}", cache.display()));
    let home = text.lines().find_map(|l| l.strip_prefix("CMAKE_HOME_DIRECTORY:INTERNAL="));
    PathBuf::from(home.expect("no CMAKE_HOME_DIRECTORY in CMakeCache.txt"))
}
