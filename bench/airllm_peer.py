"""AirLLM as the peer of a comparison: a model of the same shapes with a few random layers, saved as AirLLM wants it, and two
tokens generated. Run by gpu.py; prints a line of JSON.

A checkpoint of all layers in half floats would take 140 GB for 70 billion weights. AirLLM loads and computes one layer after the
other for every token, so that a token's time is what a layer takes, times the layers; what is outside of them is counted once.
"""

import json
import pathlib
import shutil
import sys
import time

SHAPES = {  # dim, ffn, layers, heads, kv heads, vocabulary
    "tiny": (256, 768, 4, 8, 4, 512),
    "1b": (2048, 5632, 22, 32, 4, 32000),
    "8b": (4096, 14336, 32, 32, 8, 32000),
    "70b": (8192, 28672, 80, 64, 8, 32000),
}


def main():
    job = json.loads(sys.argv[1])
    if job["preset"] not in SHAPES:
        sys.exit(f"no shapes are known for {job['preset']}")
    try:
        import torch
        import transformers
        from airllm import AutoModel
    except ImportError as error:
        sys.exit(f"this Python has no {error.name}")
    if not torch.cuda.is_available():
        sys.exit("torch finds no CUDA device")
    dim, ffn, layers, heads, kv, vocabulary = SHAPES[job["preset"]]
    few, more = job["layers"] // 2, job["layers"]
    seconds = {}
    for n in (few, more):
        path = pathlib.Path(job["dir"]) / f"airllm-{job['preset']}-{n}"
        shutil.rmtree(path, ignore_errors=True)
        config = transformers.LlamaConfig(
            hidden_size=dim, intermediate_size=ffn, num_hidden_layers=n, num_attention_heads=heads, num_key_value_heads=kv,
            vocab_size=vocabulary, torch_dtype="float16")
        torch.set_default_dtype(torch.float16)
        transformers.LlamaForCausalLM(config).save_pretrained(path, safe_serialization=True, max_shard_size="2GB")
        model = AutoModel.from_pretrained(str(path), delete_original=True)
        tokens = torch.tensor([[1, 2, 3, 4]]).cuda()
        model.generate(tokens, max_new_tokens=1, use_cache=True)
        begin = time.monotonic()
        model.generate(tokens, max_new_tokens=2, use_cache=True)
        seconds[n] = (time.monotonic() - begin) / 2
        shutil.rmtree(path, ignore_errors=True)
    each = (seconds[more] - seconds[few]) / (more - few)
    token = seconds[few] + each * (layers - few)
    note = f"extrapolated to {layers} layers from {few} ({seconds[few]:.2f} s) and {more} ({seconds[more]:.2f} s)"
    print(json.dumps({"test": "tg2", "tokens": 1, "seconds": token, "tokens_per_second": 1 / token, "setting": "fp16", "note": note}))


if __name__ == "__main__":
    main()
