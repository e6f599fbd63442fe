// What libllama says a context takes, as C: its own function for this returns a C++ map.
#pragma once
#include "llama.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ggml_sys_breakdown_row {
    ggml_backend_buffer_type_t buft;
    size_t model;   // weights
    size_t context; // KV cache, recurrent state
    size_t compute; // activations
};

// Writes up to `n` rows, one for each buffer type; returns how many there are.
size_t ggml_sys_breakdown(const struct llama_context * context, struct ggml_sys_breakdown_row * rows, size_t n);

#ifdef __cplusplus
}
#endif
