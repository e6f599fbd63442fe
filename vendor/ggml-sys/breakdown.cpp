// See breakdown.h. No logic.
#include "breakdown.h"

#include "llama-ext.h"

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
