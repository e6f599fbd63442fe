"""llama.cpp as the peer of a comparison: one test, driven through llama-cpp-python's low-level calls. Run by compare.py.

Prints a line of JSON for each stage, so that whoever runs out of patience knows how far it came.
"""

import ctypes
import json
import resource
import sys
import time


def main():
    job = json.loads(sys.argv[1])
    import llama_cpp.llama_cpp as llama

    quiet = llama.llama_log_callback(lambda level, text, data: None)
    llama.llama_log_set(quiet, ctypes.c_void_p())
    llama.llama_backend_init()
    say(stage="loading")
    params, note = model_params(llama, job)
    model = llama.llama_model_load_from_file(job["model"].encode(), params)
    if not model:
        sys.exit("llama.cpp could not load the model")
    context = llama.llama_init_from_model(model, context_params(llama, job))
    if not context:
        sys.exit("llama.cpp could not make a context")
    kind, n = job["test"][:2], int(job["test"][2:])
    vocab = llama.llama_model_get_vocab(model)
    tokens = text_tokens(llama, vocab, job["text"], n + 1) if "text" in job else fixed_tokens(n + 1, llama.llama_vocab_n_tokens(vocab))
    say(stage="warming up")
    seconds = {"pp": prompt, "tg": generation}[kind](llama, context, n, tokens)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    say(tokens=n, seconds=seconds, tokens_per_second=n / seconds, peak_rss_bytes=peak, note=note)


def model_params(llama, job):
    """The parameters, and a note on what this version does not offer."""
    params = llama.llama_model_default_params()
    params.n_gpu_layers = job.get("n_gpu_layers", 0)
    names = [name for name, _ in params._fields_]
    notes = []
    if "use_mmap" in job:
        if "use_mmap" in names:
            params.use_mmap = job["use_mmap"]
        elif job["use_mmap"]:
            params.load_mode = llama.LLAMA_LOAD_MODE_MMAP
    if not job.get("repack", True):
        if "use_extra_bufts" in names:
            params.use_extra_bufts = False
        else:
            notes.append("this version always repacks")
    return params, "; ".join(notes)


def context_params(llama, job):
    params = llama.llama_context_default_params()
    params.n_ctx = job["ctx"]
    params.n_batch = params.n_ubatch = min(job.get("batch", 512), job["ctx"])
    params.n_threads = params.n_threads_batch = job["threads"]
    params.no_perf = True
    return params


def fixed_tokens(n, n_vocab):
    """The tokens that `airrun bench` computes."""
    return [((i + 1) * 0x9E3779B97F4A7C15 % (1 << 64) >> 32) % n_vocab for i in range(n)]


def text_tokens(llama, vocab, path, n):
    """The first `n` tokens of a text, again and again if it is short, as `airrun bench --text` computes them."""
    text = open(path, "rb").read()
    found = -(len(text) + 8)
    while found < 0:
        # It says how much room it wants where there is too little.
        room = (llama.llama_token * -found)()
        found = llama.llama_tokenize(vocab, text, len(text), room, len(room), True, True)
    if found <= 0:
        sys.exit("llama.cpp found no tokens in the text")
    return [room[i % found] for i in range(n)]


def decode(llama, context, tokens):
    array = (llama.llama_token * len(tokens))(*tokens)
    if llama.llama_decode(context, llama.llama_batch_get_one(array, len(tokens))) != 0:
        sys.exit("llama.cpp could not compute")
    # Asking for the logits waits until they are there.
    llama.llama_get_logits_ith(context, -1)


def forget(llama, context):
    llama.llama_memory_clear(llama.llama_get_memory(context), True)


def prompt(llama, context, n, tokens):
    tokens = tokens[:n]
    decode(llama, context, tokens[: min(n, 32)])
    forget(llama, context)
    begin = time.monotonic()
    step = llama.llama_n_batch(context)
    for at in range(0, n, step):
        decode(llama, context, tokens[at : at + step])
    return time.monotonic() - begin


def generation(llama, context, n, tokens):
    for token in tokens[:2]:
        decode(llama, context, [token])
    forget(llama, context)
    decode(llama, context, tokens[:1])
    begin = time.monotonic()
    for k, token in enumerate(tokens[1:], 1):
        decode(llama, context, [token])
        say(stage=f"{k} of {n} tokens in {time.monotonic() - begin:.1f} s")
    return time.monotonic() - begin


def say(**what):
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    main()
