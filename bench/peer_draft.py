"""llama.cpp with a draft model as the peer of `airrun run --draft`: a greedy chain, through llama-cpp-python's low-level calls.

    peer_draft.py '{"model": ..., "draft": ... or null, "prompt": FILE, "tokens": 48, "drafted": 8, "threads": 2, "ctx": 512}'

Weights are mapped and not repacked, so that they can be dropped and read again. Prints a line of JSON: tokens, seconds of them without
those of the prompt, passes. What is drafted ends where the draft is unsure (less than half), as llama.cpp's own example does by default.
"""

import ctypes
import json
import math
import sys
import time


def main():
    job = json.loads(sys.argv[1])
    import llama_cpp.llama_cpp as llama

    quiet = llama.llama_log_callback(lambda level, text, data: None)
    llama.llama_log_set(quiet, ctypes.c_void_p())
    llama.llama_backend_init()
    target = Text(llama, job["model"], job)
    draft = Text(llama, job["draft"], job) if job.get("draft") else None
    tokens = target.tokenize(open(job["prompt"], "rb").read())
    begin = time.monotonic()
    for text in filter(None, (target, draft)):
        text.run(tokens[:-1])
    prompt_seconds = time.monotonic() - begin
    begin, passes, n_prompt = time.monotonic(), 0, len(tokens)
    while len(tokens) - n_prompt < job["tokens"]:
        guesses = draft.guess(tokens, job["drafted"]) if draft else []
        batch = [tokens[-1], *guesses]
        target.back_to(len(tokens) - 1)
        rows = target.run(batch)
        passes += 1
        came = [best(row)[0] for row in rows]
        n = next((i for i, (a, b) in enumerate(zip(guesses, came)) if a != b), len(guesses))
        tokens += came[: n + 1]
        if target.ends(came[: n + 1]):
            break
    seconds = time.monotonic() - begin
    n = len(tokens) - n_prompt
    print(json.dumps({"tokens": n, "seconds": seconds, "prompt_seconds": prompt_seconds, "passes": passes,
                      "tokens_per_second": n / seconds, "ids": tokens[n_prompt:]}))


class Text:
    """A model and the text that it has read."""

    def __init__(self, llama, path, job):
        self.llama = llama
        params = llama.llama_model_default_params()
        params.n_gpu_layers = 0
        if hasattr(params, "use_extra_bufts"):
            params.use_extra_bufts = False
        if hasattr(params, "use_mmap"):
            params.use_mmap = True
        self.model = llama.llama_model_load_from_file(path.encode(), params)
        context = llama.llama_context_default_params()
        context.n_ctx = context.n_batch = context.n_ubatch = job["ctx"]
        context.n_threads = context.n_threads_batch = job["threads"]
        self.context = self.model and llama.llama_init_from_model(self.model, context)
        if not self.context:
            sys.exit(f"llama.cpp could not load {path}")
        self.vocab = llama.llama_model_get_vocab(self.model)
        self.n_vocab = llama.llama_vocab_n_tokens(self.vocab)
        self.n = 0
        self.batch = llama.llama_batch_init(job["ctx"], 0, 1)

    def tokenize(self, text):
        room = (self.llama.llama_token * (len(text) + 8))()
        n = self.llama.llama_tokenize(self.vocab, text, len(text), room, len(room), True, True)
        return list(room[:n])

    def run(self, tokens):
        """The logits after each of them."""
        batch = self.batch
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, self.n + i, 1, True
            batch.seq_id[i][0] = 0
        if tokens and self.llama.llama_decode(self.context, batch) != 0:
            sys.exit("llama.cpp could not compute")
        self.n += len(tokens)
        return [self.llama.llama_get_logits_ith(self.context, i)[: self.n_vocab] for i in range(len(tokens))]

    def back_to(self, n):
        if n < self.n:
            self.llama.llama_memory_seq_rm(self.llama.llama_get_memory(self.context), 0, n, -1)
            self.n = n

    def guess(self, tokens, most):
        """Up to `most` tokens that may come next."""
        # What it guessed last time may be wrong; what it read for sure is the text without its last token.
        self.back_to(min(self.n, len(tokens) - 1))
        rows, guesses = self.run(tokens[self.n :]), []
        while len(guesses) < most:
            token, likely = best(rows[-1])
            if likely < 0.5:
                break
            guesses.append(token)
            rows = self.run([token])
        return guesses

    def ends(self, tokens):
        return any(self.llama.llama_vocab_is_eog(self.vocab, token) for token in tokens)


def best(row):
    """The likeliest token, and how likely it is."""
    token = max(range(len(row)), key=row.__getitem__)
    return token, 1 / sum(math.exp(x - row[token]) for x in row)


if __name__ == "__main__":
    main()
