"""PyPI's `litellm` by the names of six providers, against a server whose model is the parrot.

    litellm_client.py http://127.0.0.1:11435 KEY
"""

import json
import os
import sys
from importlib.metadata import version

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
import litellm

URL, KEY = sys.argv[1:3]
litellm.telemetry = False
litellm.suppress_debug_info = True
HELLO = "Hello there, you who ask."
ASKED = [{"role": "user", "content": "Hi"}]
WEATHER = [{
    "type": "function",
    "function": {
        "name": "weather", "description": "d",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}]


def chat(provider, base):
    asked = {"model": f"{provider}/parrot", "api_base": base, "api_key": KEY, "num_retries": 0}
    answer = litellm.completion(messages=ASKED, **asked)
    assert answer.choices[0].message.content == HELLO, (provider, answer)
    assert answer.usage.completion_tokens > 0, (provider, answer)
    parts = list(litellm.completion(messages=ASKED, stream=True, **asked))
    assert "".join(p.choices[0].delta.content or "" for p in parts if p.choices) == HELLO, (provider, parts)
    if provider == "ollama":
        # By that name it spells calls in the prompt itself.
        return
    answer = litellm.completion(messages=ASKED, tools=WEATHER, **asked)
    call = answer.choices[0].message.tool_calls[0]
    assert call.function.name == "weather" and json.loads(call.function.arguments) == {"city": "Oslo"}, answer
    told = [*ASKED, answer.choices[0].message.model_dump(), {"role": "tool", "tool_call_id": call.id, "content": "Rain"}]
    answer = litellm.completion(messages=told, tools=WEATHER, **asked)
    assert answer.choices[0].message.content == "The tool has told me: all is well.", (provider, answer)
    parts = list(litellm.completion(messages=ASKED, tools=WEATHER, stream=True, **asked))
    whole = litellm.stream_chunk_builder(parts)
    assert whole.choices[0].message.tool_calls[0].function.name == "weather", (provider, whole)


def main():
    for provider in ("openai", "hosted_vllm", "lm_studio", "llamafile"):
        chat(provider, f"{URL}/v1")
    os.environ["OLLAMA_API_KEY"] = KEY
    chat("ollama_chat", URL)
    chat("ollama", URL)
    chat("anthropic", URL)
    answer = litellm.responses(model="openai/parrot", api_base=f"{URL}/v1", api_key=KEY, input="Hi")
    assert answer.output[-1].content[0].text == HELLO, answer
    vector = litellm.embedding(model="openai/parrot", api_base=f"{URL}/v1", api_key=KEY, input=["one"]).data[0]
    assert len(vector["embedding"]) > 0
    try:
        long = [{"role": "user", "content": "word " * 200_000}]
        litellm.completion(model="openai/parrot", api_base=f"{URL}/v1", api_key=KEY, num_retries=0, messages=long)
        raise SystemExit("it has no end")
    except litellm.ContextWindowExceededError:
        pass
    print("litellm", version("litellm"), "works")


main()
