// See caught.h. No logic.
#include "caught.h"

#include <cstdint>
#include <exception>
#include <limits>

#include "ggml-impl.h"

// What `call` answers; `otherwise`, if it throws.
template <typename T, typename F> static T caught(T otherwise, F call) {
    try {
        return call();
    } catch (const std::exception & e) {
        // Messages up to 128 bytes are put together without asking for memory, which may be what is missing.
        ggml_log_internal(GGML_LOG_LEVEL_ERROR, "%.100s\n", e.what());
    } catch (...) {
        ggml_log_internal(GGML_LOG_LEVEL_ERROR, "an exception without a name\n");
    }
    return otherwise;
}

// Whether `call` came to its end.
template <typename F> static bool ended(F call) {
    return caught(false, [&] {
        call();
        return true;
    });
}

llama_model * ggml_sys_llama_model_load_from_file_ptr(FILE * file, llama_model_params params) {
    return caught<llama_model *>(nullptr, [&] { return llama_model_load_from_file_ptr(file, params); });
}

llama_context * ggml_sys_llama_init_from_model(llama_model * model, llama_context_params params) {
    return caught<llama_context *>(nullptr, [&] { return llama_init_from_model(model, params); });
}

uint32_t ggml_sys_llama_model_quantize(const char * from, const char * to, const llama_model_quantize_params * params) {
    return caught<uint32_t>(1, [&] { return llama_model_quantize(from, to, params); });
}

int32_t ggml_sys_llama_tokenize(const llama_vocab * vocab, const char * text, int32_t text_len, llama_token * tokens, int32_t n_tokens_max,
    bool add_special, bool parse_special) {
    return caught(std::numeric_limits<int32_t>::min(),
        [&] { return llama_tokenize(vocab, text, text_len, tokens, n_tokens_max, add_special, parse_special); });
}

int32_t ggml_sys_llama_token_to_piece(const llama_vocab * vocab, llama_token token, char * buf, int32_t length, int32_t lstrip, bool special) {
    return caught<int32_t>(0, [&] { return llama_token_to_piece(vocab, token, buf, length, lstrip, special); });
}

int32_t ggml_sys_llama_encode(llama_context * ctx, llama_batch batch) {
    return caught<int32_t>(-4, [&] { return llama_encode(ctx, batch); });
}

int32_t ggml_sys_llama_decode(llama_context * ctx, llama_batch batch) {
    return caught<int32_t>(-4, [&] { return llama_decode(ctx, batch); });
}

bool ggml_sys_llama_set_embeddings(llama_context * ctx, bool embeddings) {
    return ended([&] { llama_set_embeddings(ctx, embeddings); });
}

bool ggml_sys_llama_memory_clear(llama_memory_t mem, bool data) {
    return ended([&] { llama_memory_clear(mem, data); });
}

bool ggml_sys_llama_memory_seq_rm(llama_memory_t mem, llama_seq_id seq_id, llama_pos p0, llama_pos p1) {
    return caught(false, [&] { return llama_memory_seq_rm(mem, seq_id, p0, p1); });
}

bool ggml_sys_llama_memory_seq_cp(llama_memory_t mem, llama_seq_id from, llama_seq_id to, llama_pos p0, llama_pos p1) {
    return ended([&] { llama_memory_seq_cp(mem, from, to, p0, p1); });
}

llama_sampler * ggml_sys_llama_sampler_chain_init(llama_sampler_chain_params params) {
    return caught<llama_sampler *>(nullptr, [&] { return llama_sampler_chain_init(params); });
}

bool ggml_sys_llama_sampler_chain_add(llama_sampler * chain, llama_sampler * sampler) {
    return ended([&] { llama_sampler_chain_add(chain, sampler); });
}

bool ggml_sys_llama_sampler_accept(llama_sampler * sampler, llama_token token) {
    return ended([&] { llama_sampler_accept(sampler, token); });
}

bool ggml_sys_llama_sampler_apply(llama_sampler * sampler, llama_token_data_array * tokens) {
    return ended([&] { llama_sampler_apply(sampler, tokens); });
}

llama_sampler * ggml_sys_llama_sampler_clone(const llama_sampler * sampler) {
    return caught<llama_sampler *>(nullptr, [&] { return llama_sampler_clone(sampler); });
}
