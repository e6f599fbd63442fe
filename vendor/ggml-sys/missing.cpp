// See missing.h. No logic.
#include "missing.h"

#include <algorithm>
#include <cstring>

#include "ggml-cpu/traits.h"
#include "llama-arch.h"
#include "llama-context.h"
#include "llama-ext.h"
#include "llama-model.h"

void ggml_sys_never_repack_for(const char * name) {
    auto & kinds = ggml_backend_cpu_get_extra_buffer_types();
    const auto is_it = [&](ggml_backend_buffer_type_t kind) { return strcmp(ggml_backend_buft_name(kind), name) == 0; };
    kinds.erase(std::remove_if(kinds.begin(), kinds.end(), is_it), kinds.end());
}

size_t ggml_sys_breakdown(const struct llama_context * context, struct ggml_sys_breakdown_row * rows, size_t n) {
    size_t i = 0;
    for (const auto & [buft, data] : llama_get_memory_breakdown(context)) {
        if (i < n) {
            rows[i] = { buft, data.model, data.context, data.compute };
        }
        i++;
    }
    return i;
}

size_t ggml_sys_graph_nodes(const struct llama_context * context) {
    return context->get_gf_res_reserve()->get_max_nodes();
}

size_t ggml_sys_model_tensors(const struct llama_model * model, const struct ggml_tensor ** tensors, size_t n) {
    size_t i = 0;
    for (const auto & [name, tensor] : llama_internal_get_tensor_map(model)) {
        if (i < n) {
            tensors[i] = tensor;
        }
        i++;
    }
    return i;
}

bool ggml_sys_keep_hidden(struct llama_context * context, bool masked) {
    try {
        llama_set_embeddings_nextn(context, true, masked);
        // That alone leaves the room as it was; another direction of attention makes it anew, and there is no other way to ask for it.
        const bool causal = llama_get_causal_attn(context);
        llama_set_causal_attn(context, !causal);
        llama_set_causal_attn(context, causal);
        context->sched_reserve();
        return true;
    } catch (...) {
        return false;
    }
}

const float * ggml_sys_hidden(struct llama_context * context) {
    return llama_get_embeddings_nextn(context);
}

bool ggml_sys_keep_layers(struct llama_context * context, const uint32_t * layers, size_t n) {
    try {
        for (size_t i = 0; i < n; i++) {
            llama_set_embeddings_layer_inp(context, layers[i], true);
        }
        context->sched_reserve();
        return true;
    } catch (...) {
        return false;
    }
}

const float * ggml_sys_layer(struct llama_context * context, uint32_t layer) {
    return llama_get_embeddings_layer_inp(context, layer);
}

uint32_t ggml_sys_encoder_width(const struct llama_model * model) {
    return model->hparams.n_embd_inp_enc();
}

bool ggml_sys_lends(const struct llama_model * model) {
    return model->tok_embd != nullptr && model->output != nullptr;
}

bool ggml_sys_knows_architecture(const char * name) {
    return llm_arch_from_string(name) != LLM_ARCH_UNKNOWN;
}
