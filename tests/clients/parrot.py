"""Writes a parrot: a model of one block that says what its template chooses, word by word, whatever the sampler. With it, clients meet
answers and calls of tools that a small model would not find.

    parrot.write(path, [(condition, text), ...])

A condition is Jinja over what templates know, and over `last` (the last message), `asked` (the text of the last message) and `names` (of
the tools). The first one that holds decides. Calls are written as Hermes and Qwen do: <tool_call>{"name": ..., "arguments": ...}</tool_call>.
"""

import json
import struct

TEMPLATE = """{%- set last = messages[-1] -%}
{%- set asked = last.content if last.content is string else '' -%}
{%- set names = (tools or []) | map(attribute='function') | map(attribute='name') | list -%}
{%- for t in tools or [] -%}<tools>{{ t | tojson }}</tools>
{% endfor -%}
{%- for m in messages -%}
<|im_start|>{{ m.role }}
{{ m.content if m.content is string else '' }}
{%- for c in m.tool_calls or [] %}
<tool_call>{"name": {{ c.function.name | tojson }}, "arguments": {{ c.function.arguments | tojson }}}</tool_call>
{%- endfor -%}
<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
SAYS{%- endif -%}"""


def call(name, /, **arguments):
    """A call as the parrot says it."""
    said = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>\n{said}\n</tool_call>"


def letters():
    """GPT-2's letter of each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + i) for i, byte in enumerate(rest)}


LETTERS = letters()


def spelled(text):
    return "".join(LETTERS[byte] for byte in text.encode())


def pieces(text, taken):
    """`text` cut into pieces of some characters that nothing else is cut into; None if that cannot be."""
    if not text:
        return []
    for end in [*range(4, len(text)), len(text)]:
        if text[:end] not in taken:
            rest = pieces(text[end:], taken | {text[:end]})
            if rest is not None:
                return [text[:end], *rest]
    return None


def chains(script, tokens):
    """Which token follows which; new ones are added to `tokens`."""
    index = {token: i for i, token in enumerate(tokens)}
    follows, taken = {}, set()
    for i, (_, text) in enumerate(script):
        at = index[f"<|say-{i}|>"]
        cut = pieces(text, taken)
        taken |= set(cut)
        for piece in cut:
            word = spelled(piece)
            if word not in index:
                index[word] = len(tokens)
                tokens.append(word)
            follows[at] = index[word]
            at = index[word]
        follows[at] = index["<|im_end|>"]
    return follows


# The file's form: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
U32, F32, BOOL, TEXT, LIST = 4, 6, 7, 8, 9


def packed_text(text):
    return struct.pack("<Q", len(text.encode())) + text.encode()


def packed(value):
    if isinstance(value, bool):
        return struct.pack("<I?", BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", U32, value)
    if isinstance(value, float):
        return struct.pack("<If", F32, value)
    if isinstance(value, str):
        return struct.pack("<I", TEXT) + packed_text(value)
    kind = TEXT if isinstance(value[0], str) else 5
    head = struct.pack("<IIQ", LIST, kind, len(value))
    return head + b"".join(packed_text(v) if kind == TEXT else struct.pack("<i", v) for v in value)


def matrix(rows, width, ones, value):
    """Half floats: `value` where `ones` says row and column, else 0."""
    data = bytearray(2 * rows * width)
    for row, column in ones:
        struct.pack_into("<e", data, 2 * (row * width + column), value)
    return (width, rows), 1, bytes(data)


def write(path, script, tokenizer="models/tiny-chat-tokenizer.json", template=TEMPLATE):
    """Writes the file."""
    bpe = json.load(open(tokenizer))["model"]
    tokens = sorted(bpe["vocab"], key=bpe["vocab"].get)
    control = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"} | {f"<|say-{i}|>" for i in range(len(script))}
    tokens += sorted(control - set(tokens))
    follows = chains(script, tokens)
    # What is never followed by anything has one column for all.
    column = {token: i + 1 for i, token in enumerate(follows)}
    width = (len(column) // 64 + 1) * 64
    end = tokens.index("<|im_end|>")
    says = "".join(
        f"{{%- {'if' if i == 0 else 'elif'} {condition} -%}}<|say-{i}|>" for i, (condition, _) in enumerate(script)
    )
    keys = {
        "general.architecture": "llama",
        "general.name": "parrot",
        "llama.context_length": 131072,
        "llama.embedding_length": width,
        "llama.block_count": 1,
        "llama.feed_forward_length": 64,
        "llama.attention.head_count": 1,
        "llama.attention.head_count_kv": 1,
        "llama.attention.key_length": 64,
        "llama.attention.value_length": 64,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": 64,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if token in control else 1 for token in tokens],
        "tokenizer.ggml.merges": [m if isinstance(m, str) else " ".join(m) for m in bpe["merges"]],
        "tokenizer.ggml.eos_token_id": end,
        "tokenizer.ggml.bos_token_id": tokens.index("<|endoftext|>"),
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": template.replace("SAYS", says + "{%- endif -%}"),
    }
    ones = struct.pack("<f", 1.0) * width
    columns = [(i, column.get(i, 0)) for i in range(len(tokens))]
    tensors = {
        "token_embd.weight": matrix(len(tokens), width, columns, 1.0),
        "output_norm.weight": ((width,), 0, ones),
        "output.weight": matrix(len(tokens), width, [(end, 0)] + [(n, column[t]) for t, n in follows.items()], 8.0),
        "blk.0.attn_norm.weight": ((width,), 0, ones),
        "blk.0.ffn_norm.weight": ((width,), 0, ones),
    }
    for name, rows, columns in [
        ("attn_q", 64, width), ("attn_k", 64, width), ("attn_v", 64, width), ("attn_output", width, 64),
        ("ffn_gate", 64, width), ("ffn_up", 64, width), ("ffn_down", width, 64),
    ]:
        tensors[f"blk.0.{name}.weight"] = matrix(rows, columns, [], 0.0)
    out = bytearray(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys)))
    for key, value in keys.items():
        out += packed_text(key) + packed(value)
    at = 0
    for name, (dims, kind, data) in tensors.items():
        out += packed_text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, at)
        at += -(-len(data) // 32) * 32
    out += bytes(-len(out) % 32)
    for _, _, data in tensors.values():
        out += data + bytes(-len(data) % 32)
    open(path, "wb").write(out)
