// What libllama offers to C++ only, as C.
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

// Takes one of the CPU's ways to repack weights off ggml's list, by the name of its buffer type. To be called before anything asks for the list.
void ggml_sys_never_repack_for(const char * name);

// What a context takes: writes up to `n` rows, one for each buffer type; returns how many there are.
size_t ggml_sys_breakdown(const struct llama_context * context, struct ggml_sys_breakdown_row * rows, size_t n);

// The most operations and tensors of one graph of this context.
size_t ggml_sys_graph_nodes(const struct llama_context * context);

// A model's tensors: writes up to `n` of them; returns how many there are.
size_t ggml_sys_model_tensors(const struct llama_model * model, const struct ggml_tensor ** tensors, size_t n);

// Lets a context keep the state behind each token of a batch that heads read, or, if `masked`, behind those whose logits are wanted; makes room for
// graphs that do. Whether all went well.
bool ggml_sys_keep_hidden(struct llama_context * context, bool masked);

// What it keeps, a row for each token of the last batch, in order; NULL if there is nothing.
const float * ggml_sys_hidden(struct llama_context * context);

// Lets a context keep what goes into each of these blocks, of which the model has more, for every token of a batch; makes room for graphs that do.
// Whether all went well.
bool ggml_sys_keep_layers(struct llama_context * context, const uint32_t * layers, size_t n);

// What it keeps of one of them, a row for each token of the last batch, in order: to be asked after a batch that went well.
const float * ggml_sys_layer(struct llama_context * context, uint32_t layer);

// Numbers of a token that a model's encoder reads.
uint32_t ggml_sys_encoder_width(const struct llama_model * model);

// Whether a model has an embedding and an output for another to borrow.
bool ggml_sys_lends(const struct llama_model * model);

// Whether there is code for models of this architecture.
bool ggml_sys_knows_architecture(const char * name);

#ifdef __cplusplus
}
#endif
