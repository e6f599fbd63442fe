// See missing.h. No logic.
#include "missing.h"

#include "llama-arch.h"
#include "llama-context.h"
#include "llama-ext.h"
#include "llama-model.h"

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

bool ggml_sys_knows_architecture(const char * name) {
    return llm_arch_from_string(name) != LLM_ARCH_UNKNOWN;
}
