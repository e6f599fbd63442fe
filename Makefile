# The two commands of the README, and what they need. `make help` lists all.
#
#   make chat              set up, build, and chat with the small model in models/ (MODEL=path for another)
#   make test              set up, build, and run all tests

MODEL ?= models/tiny-chat-q4_k_m.gguf

# A compiler cache makes the second build of ggml a matter of seconds; its results do not depend on where the tree lies.
ifneq ($(shell command -v ccache),)
export CMAKE_C_COMPILER_LAUNCHER ?= ccache
export CMAKE_CXX_COMPILER_LAUNCHER ?= ccache
export CCACHE_NOHASHDIR ?= 1
endif

.PHONY: chat test test-clients build check setup help

chat: build
	@target/release/airrun chat $(MODEL)

test: setup
	cargo test --release --workspace

# The clients that people have, against the server: PyPI's openai and ollama. Skipped where pip cannot install them.
test-clients: build
	sh tests/clients/run.sh

build: setup
	cargo build --release

# What CI adds to the tests.
check: setup
	cargo fmt --check
	cargo clippy --release --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --release --no-deps --document-private-items
	cargo check --manifest-path fuzz/Cargo.toml

setup:
	@sh tools/setup.sh

help:
	@sed -n 's/^#   //p' Makefile
