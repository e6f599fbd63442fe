"""The PyPI package `openai`, unmodified, against a running airrun: chat, streaming, tools, schemas, vectors, errors.

    openai_client.py http://127.0.0.1:11435 KEY
"""

import json
import sys

import openai

QUESTION = [{"role": "user", "content": "What is the capital of Mongolia?"}]
ANSWER = "The capital of Mongolia is Ulaanbaatar."
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Oslo", "Lima"]}},
            "required": ["city"],
        },
    },
}


def main():
    url, key = sys.argv[1:3]
    client = openai.OpenAI(base_url=url + "/v1", api_key=key, max_retries=0)
    model = client.models.list().data[0].id
    assert client.models.retrieve(model).id == model
    chat(client, model)
    stream(client, model)
    formats(client, model)
    tools(client, model)
    completions(client, model)
    vectors(client, model)
    errors(client, model, url)
    print("openai", openai.__version__, "works")


def ask(client, model, **more):
    return client.chat.completions.create(model=model, messages=QUESTION, temperature=0, **more)


def chat(client, model):
    answer = ask(client, model)
    assert answer.choices[0].message.content == ANSWER, answer
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    answer = ask(client, model, n=2, logprobs=True, top_logprobs=2, max_completion_tokens=3)
    assert [c.finish_reason for c in answer.choices] == ["length", "length"]
    assert len(answer.choices[0].logprobs.content) == 3
    assert len(answer.choices[0].logprobs.content[0].top_logprobs) == 2
    answer = ask(client, model, stop=["a is Ulaan"])
    assert answer.choices[0].message.content == "The capital of Mongoli"


def stream(client, model):
    events = list(ask(client, model, stream=True, stream_options={"include_usage": True}))
    text = "".join(e.choices[0].delta.content or "" for e in events if e.choices)
    assert text == ANSWER, text
    assert events[-1].usage.completion_tokens > 0
    # Left half-way, and asked again.
    for _ in ask(client, model, stream=True):
        break
    assert ask(client, model).choices[0].message.content == ANSWER


def formats(client, model):
    schema = {"name": "person", "schema": PERSON, "strict": True}
    answer = ask(client, model, response_format={"type": "json_schema", "json_schema": schema})
    person = json.loads(answer.choices[0].message.content)
    assert set(person) == {"name", "age"}, person
    answer = ask(client, model, response_format={"type": "json_object"}, max_tokens=200)
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(answer.choices[0].message.content), dict)


def tools(client, model):
    try:
        answer = ask(client, model, tools=[WEATHER], tool_choice="required")
    except openai.BadRequestError as error:
        assert "does not support tools" in error.message, error
        return
    call = answer.choices[0].message.tool_calls[0]
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments)["city"] in ("Oslo", "Lima")
    assert answer.choices[0].finish_reason == "tool_calls"
    messages = [*QUESTION, answer.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "Sunny."}]
    answer = client.chat.completions.create(model=model, messages=messages, tools=[WEATHER], max_tokens=8)
    assert answer.choices[0].message.role == "assistant"


def completions(client, model):
    answer = client.completions.create(model=model, prompt="The capital of Peru is", temperature=0, max_tokens=8)
    assert answer.choices[0].text == " Lima.", answer
    events = client.completions.create(model=model, prompt="The capital of Peru is", temperature=0, stream=True)
    assert "".join(e.choices[0].text for e in events) == " Lima."


def vectors(client, model):
    data = client.embeddings.create(model=model, input=["one", "two"]).data
    assert len(data) == 2 and len(data[0].embedding) == len(data[1].embedding) > 0
    assert abs(sum(x * x for x in data[0].embedding) - 1) < 1e-3


def errors(client, model, url):
    def expect(kind, status, call):
        try:
            call()
        except kind as error:
            assert error.status_code == status, error
            return error
        raise AssertionError(f"no {kind.__name__}")

    assert ask(client, "another").model == model
    expect(openai.BadRequestError, 400, lambda: ask(client, model, max_tokens=-2))
    long = [{"role": "user", "content": "word " * 5000}]
    error = expect(
        openai.BadRequestError, 400, lambda: client.chat.completions.create(model=model, messages=long)
    )
    assert error.code == "context_length_exceeded", error
    stranger = openai.OpenAI(base_url=url + "/v1", api_key="wrong", max_retries=0)
    expect(openai.AuthenticationError, 401, stranger.models.list)


if __name__ == "__main__":
    main()
