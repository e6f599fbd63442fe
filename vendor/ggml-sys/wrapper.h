// What bindgen reads. `missing.h`, `caught.h` and `words.h` are ours. `wrapper_common.h` is the crate's own: JSON schemas to grammars, and samplers that cannot throw. The last
// two are ggml's internal headers: the device tables that a device fills in, and the compute graph's layout, which a device
// cuts into runs. They change between releases, so they are always read from the pinned source.
#include "ggml.h"
#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "gguf.h"
#include "llama.h"
#include "wrapper_common.h"
#include "missing.h"
#include "caught.h"
#include "words.h"
#include "ggml-backend-impl.h"
#include "ggml-impl.h"
