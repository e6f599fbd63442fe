// Entries of libllama that may throw, for callers that cannot catch: what is thrown is logged as an error, and the answer is the one that the entry
// gives when it fails. What returns nothing in libllama returns here whether all went well. Each is called as its namesake without `ggml_sys`.
#pragma once
#include "llama.h"

#ifdef __cplusplus
extern "C" {
#endif

struct llama_model * ggml_sys_llama_model_load_from_file_ptr(FILE * file, struct llama_model_params params);
struct llama_context * ggml_sys_llama_init_from_model(struct llama_model * model, struct llama_context_params params);
uint32_t ggml_sys_llama_model_quantize(const char * from, const char * to, const struct llama_model_quantize_params * params);

// INT32_MIN if it threw: no text has so many tokens.
int32_t ggml_sys_llama_tokenize(const struct llama_vocab * vocab, const char * text, int32_t text_len, llama_token * tokens, int32_t n_tokens_max,
    bool add_special, bool parse_special);
int32_t ggml_sys_llama_token_to_piece(const struct llama_vocab * vocab, llama_token token, char * buf, int32_t length, int32_t lstrip, bool special);

// -4 if they threw: libllama itself goes down to -3.
int32_t ggml_sys_llama_encode(struct llama_context * ctx, struct llama_batch batch);
int32_t ggml_sys_llama_decode(struct llama_context * ctx, struct llama_batch batch);
bool ggml_sys_llama_set_embeddings(struct llama_context * ctx, bool embeddings);
bool ggml_sys_llama_memory_clear(llama_memory_t mem, bool data);
bool ggml_sys_llama_memory_seq_rm(llama_memory_t mem, llama_seq_id seq_id, llama_pos p0, llama_pos p1);
bool ggml_sys_llama_memory_seq_cp(llama_memory_t mem, llama_seq_id from, llama_seq_id to, llama_pos p0, llama_pos p1);

struct llama_sampler * ggml_sys_llama_sampler_chain_init(struct llama_sampler_chain_params params);
bool ggml_sys_llama_sampler_chain_add(struct llama_sampler * chain, struct llama_sampler * sampler);
bool ggml_sys_llama_sampler_accept(struct llama_sampler * sampler, llama_token token);
bool ggml_sys_llama_sampler_apply(struct llama_sampler * sampler, llama_token_data_array * tokens);
struct llama_sampler * ggml_sys_llama_sampler_clone(const struct llama_sampler * sampler);

#ifdef __cplusplus
}
#endif
