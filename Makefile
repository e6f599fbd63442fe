# The two commands of the README, and what they need. `make help` lists all.
#
#   make chat              set up, build, and chat with the small model in models/ (MODEL=path for another)
#   make test              set up, build, and run all tests
#   make vulkan            set up and build with Vulkan: target/release/airrun then knows such GPUs, too
#   make portable          build for all processors of the kind since about 2015 (LEVEL=x86-64-v2 for older ones): target/portable/release/airrun
#   make cuda              set up and build with CUDA (ARCH=90-real for one kind of GPU; an hour on 2 cores without a GPU to ask)
#   make sim               try the engine in SEEDS=200 simulated worlds, or tell the story of one (SEED=7)
#   make test-vulkan       run the tests of streaming on a Vulkan device made of the CPU
#   make test-clients      test the server with others' clients from PyPI and npm, agents among them, where these can be installed
#   make test-browser      test the web page in Chromium, where there is one or it can be installed

TARGET = $(or $(CARGO_TARGET_DIR),target)
MODEL ?= models/tiny-chat-q4_k_m.gguf

# The software Vulkan device of Mesa (one per kind of processor that programs may be for), and the tests that run on it.
LAVAPIPE ?= $$(echo /usr/share/vulkan/icd.d/lvp_icd*.json | tr ' ' :)
VULKAN_TESTS ?= stream:: archs:: golden:: devices:: experts:: cards::
# Of the tiny models, one of so many is tried besides one of each kind, because most need shaders of their own; 1 tries all of them.
VULKAN_EVERY ?= 16
SHADERS = $(abspath $(TARGET))/vulkan-shaders

# A compiler cache makes the second build of ggml a matter of seconds; its results do not depend on where the tree lies.
ifneq ($(shell command -v ccache),)
export CMAKE_C_COMPILER_LAUNCHER ?= ccache
export CMAKE_CXX_COMPILER_LAUNCHER ?= ccache
export CMAKE_CUDA_COMPILER_LAUNCHER ?= ccache
export CCACHE_NOHASHDIR ?= 1
endif

.PHONY: chat test build portable vulkan cuda sim test-vulkan test-clients test-browser check setup help

chat: build
	@$(TARGET)/release/airrun chat $(MODEL)

test: setup
	@sh tools/setup.sh --tests || echo "tests that need them are skipped" >&2
	cargo test --release --workspace

# The engine on a disk, a clock and clients that follow from a seed. `make test` tries some of them.
SEEDS ?= 200
sim: setup
	SIM_SEED=$(SEED) SIM_FROM=$(FROM) SIM_SEEDS=$(SEEDS) cargo test --release --lib --test it sim:: -- --nocapture

# The clients that people have, against the server: packages of PyPI and npm, LangChain's suites, Codex, Claude Code. Skipped, one by one,
# where they cannot be installed.
test-clients: build
	sh tests/clients/run.sh

build: setup
	cargo build --release

test-browser: build
	sh tests/browser/run.sh

# Headers that are new enough are found by the script, and given to CMake where the system's are older.
vulkan: setup
	headers=$$(sh tools/setup-vulkan.sh) && CMAKE_INCLUDE_PATH=$$headers cargo build --release --features vulkan

# The kinds of GPU to compile for: those of this machine; without one, from GTX 16 and RTX 20 on, newer ones than RTX 40 through the
# driver's compiler. `cargo clean --release -p llama-cpp-sys-2` first, when it was built for others.
ARCH ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo native || echo '75-real;80-virtual;86-real;89-real')

# cuBLAS stays a library of its own, which the program finds beside it.
cuda: setup
	set -e; paths=$$(sh tools/setup-cuda.sh); \
	nvcc=$$(echo "$$paths" | sed -n 1p); link=$$(echo "$$paths" | sed -n 2p); libs=$$(echo "$$paths" | sed -n 3p); \
	CUDACXX=$$nvcc CUDAToolkit_ROOT=$${nvcc%/bin/nvcc} CUDA_PATH=$$link CUDA_LIBRARY_PATH=$$link \
		CMAKE_CUDA_ARCHITECTURES="$(ARCH)" cargo build --release --features cuda; \
	for name in libcublas libcublasLt; do \
		lib=$$(basename "$$(ls "$$libs"/$$name.so.[0-9]* | head -n 1)"); ln -sf "$$libs/$$lib" "$(TARGET)/release/$$lib"; \
	done

# ggml leaves out Vulkan devices that are CPUs, unless they are named: the number is among those that the loader finds. It is
# named after the build, which would compile ggml again for another variable whose name begins with GGML. Fused operations are off:
# which ones ggml fuses depends on what a queue computed before, and changes the last bits, streamed or not. A shader takes Mesa a
# second to compile, and each process needs dozens: they are kept, whatever HOME is and whoever else uses Mesa's own cache.
test-vulkan: setup
	mkdir -p "$(SHADERS)"
	headers=$$(sh tools/setup-vulkan.sh --tests) && export CMAKE_INCLUDE_PATH=$$headers && \
	cargo test --release --features vulkan --test it --no-run && \
	AIRRUN_TEST_DEVICE=vulkan AIRRUN_TEST_EVERY=$(VULKAN_EVERY) GGML_VK_VISIBLE_DEVICES=0 GGML_VK_DISABLE_FUSION=1 \
		MESA_SHADER_CACHE_DIR="$(SHADERS)" MESA_SHADER_CACHE_DISABLE=false VK_DRIVER_FILES=$(LAVAPIPE) VK_ICD_FILENAMES=$(LAVAPIPE) \
		cargo test --release --features vulkan --test it -- $(VULKAN_TESTS)

# For other machines than this one. A processor that lacks something of it is told so.
LEVEL ?= $(if $(filter x86_64,$(shell uname -m)),x86-64-v3,generic)
portable: setup
	RUSTFLAGS="-C target-cpu=$(LEVEL)" cargo build --release --target-dir $(TARGET)/portable

# What CI adds to the tests.
check: setup
	cargo fmt --check
	cargo clippy --release --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --release --no-deps --document-private-items
	cargo check --release --manifest-path fuzz/Cargo.toml --target-dir "$(TARGET)"
	sh tools/check-targets.sh
	@if ! cargo deny --version >/dev/null 2>&1; then \
		echo "skipped: cargo-deny is not here (cargo install cargo-deny --locked)" >&2; [ "$$AIRRUN_TEST_NO_SKIP" != 1 ]; \
	else \
		cargo deny --log-level error check bans licenses sources && \
		if cargo deny fetch db >/dev/null 2>&1; then cargo deny --log-level error check advisories; \
		else echo "skipped: the list of advisories cannot be fetched from GitHub" >&2; fi; \
	fi

setup:
	@sh tools/setup.sh

help:
	@sed -n 's/^#   //p' Makefile
