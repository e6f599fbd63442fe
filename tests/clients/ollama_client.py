"""The PyPI package `ollama`, unmodified, against a running airrun: chat, streaming, tools, formats, vectors, errors.

    ollama_client.py http://127.0.0.1:11435 KEY
"""

import json
import sys
from importlib.metadata import version

import ollama

QUESTION = [{"role": "user", "content": "What is the capital of Mongolia?"}]
ANSWER = "The capital of Mongolia is Ulaanbaatar."
GREEDY = {"temperature": 0}


def weather(city: str) -> str:
    """The weather of a city.

    Args:
      city: Its name.
    """
    return f"Sunny in {city}."


def main():
    url, key = sys.argv[1:3]
    client = ollama.Client(host=url, headers={"Authorization": f"Bearer {key}"})
    model = client.list().models[0].model
    assert client.ps().models[0].model == model
    shown = client.show(model)
    assert shown.details.format == "gguf" and shown.modelinfo["general.architecture"]
    chat(client, model)
    generate(client, model)
    tools(client, model, shown.capabilities)
    vectors(client, model)
    errors(client, model)
    print("ollama", version("ollama"), "works")


def chat(client, model):
    answer = client.chat(model, QUESTION, options=GREEDY, keep_alive="5m")
    assert answer.message.content == ANSWER, answer
    assert answer.done and answer.done_reason == "stop" and answer.eval_count > 0
    parts = list(client.chat(model, QUESTION, options=GREEDY, stream=True))
    assert "".join(p.message.content for p in parts) == ANSWER
    assert parts[-1].done and parts[-1].total_duration > 0
    schema = {"type": "object", "properties": {"age": {"type": "integer", "maximum": 99}}, "required": ["age"]}
    answer = client.chat(model, QUESTION, options=GREEDY, format=schema)
    assert isinstance(json.loads(answer.message.content)["age"], int)
    answer = client.chat(model, QUESTION, options=GREEDY | {"num_predict": 2})
    assert answer.done_reason == "length" and answer.eval_count == 2


def generate(client, model):
    first = client.generate(model, "My name is Rosa.", options=GREEDY)
    assert first.response == "Nice to meet you, Rosa!", first
    second = client.generate(model, "What is my name?", context=first.context, options=GREEDY)
    assert second.response == "Your name is Rosa.", second
    parts = client.generate(model, "The capital of Peru is", raw=True, stream=True, options=GREEDY)
    assert "".join(p.response for p in parts) == " Lima."


def tools(client, model, capabilities):
    messages = [*QUESTION]
    try:
        answer = client.chat(model, messages, tools=[weather], options=GREEDY | {"num_predict": 16})
    except ollama.ResponseError as error:
        assert "does not support tools" in error.error and "tools" not in capabilities, error
        return
    assert "tools" in capabilities and answer.message.role == "assistant"


def vectors(client, model):
    embeddings = client.embed(model, ["one", "two"]).embeddings
    assert len(embeddings) == 2 and len(embeddings[0]) == len(embeddings[1]) > 0
    assert len(client.embeddings(model, "one").embedding) == len(embeddings[0])


def errors(client, model):
    def expect(status, call):
        try:
            call()
        except ollama.ResponseError as error:
            assert error.status_code == status, error
            return
        raise AssertionError(f"no error {status}")

    expect(404, lambda: client.chat("another", QUESTION))
    expect(404, lambda: client.show("another"))
    expect(400, lambda: client.chat(model, [{"role": "user", "content": "word " * 5000}]))
    expect(400, lambda: client.generate(model, "x", options={"temperature": -1}))
    expect(400, lambda: list(client.generate(model, "x", options={"top_p": 7}, stream=True)))


if __name__ == "__main__":
    main()
