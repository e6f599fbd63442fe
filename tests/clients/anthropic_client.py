"""PyPI's `anthropic` against the server: messages, streams, counting, errors, and tools where the template knows them."""

import sys

import anthropic

url, key = sys.argv[1], sys.argv[2]
client = anthropic.Anthropic(base_url=url, api_key=key, max_retries=0)
# Newer versions of the package have no argument for it.
COLD = {"temperature": 0}
question = [{"role": "user", "content": "What is the capital of Mongolia?"}]
model = client.models.list().data[0].id if hasattr(client, "models") else "any"

message = client.messages.create(model=model, max_tokens=40, extra_body=COLD, messages=question)
assert message.content[0].type == "text" and message.stop_reason == "end_turn", message
assert message.usage.output_tokens > 0, message
text = message.content[0].text

with client.messages.stream(model="claude-any", max_tokens=40, extra_body=COLD, messages=question) as stream:
    pieces = list(stream.text_stream)
    final = stream.get_final_message()
assert "".join(pieces) == text == final.content[0].text, (pieces, text)
assert final.stop_reason == "end_turn" and final.usage.output_tokens > 0, final

cut = client.messages.create(model=model, max_tokens=2, extra_body=COLD, messages=question)
assert cut.stop_reason == "max_tokens", cut
stopped = client.messages.create(
    model=model, max_tokens=40, extra_body=COLD, messages=question, stop_sequences=["Mongolia"]
)
assert stopped.stop_reason == "stop_sequence" and stopped.stop_sequence == "Mongolia", stopped
count = client.messages.count_tokens(model=model, messages=question, system="Be brief.")
assert count.input_tokens > 10, count
for system in ("one", "two"):
    system = [{"type": "text", "text": f"x-anthropic-billing-header: {system}"}, {"type": "text", "text": "Be brief. " * 20}]
    again = client.messages.create(model=model, max_tokens=2, messages=question, system=system)
assert again.usage.cache_read_input_tokens > 40, again.usage
try:
    client.messages.create(model=model, max_tokens=2, messages=[{"role": "wizard", "content": "x"}])
    raise SystemExit("a wizard was let in")
except anthropic.BadRequestError as error:
    assert error.body["error"]["type"] == "invalid_request_error", error.body
try:
    anthropic.Anthropic(base_url=url, api_key="wrong", max_retries=0).messages.create(
        model=model, max_tokens=2, messages=question
    )
    raise SystemExit("a wrong key was let in")
except anthropic.AuthenticationError as error:
    assert error.body["error"]["type"] == "authentication_error", error.body
try:
    client.messages.create(model=model, max_tokens=2, messages=[{"role": "user", "content": "word " * 9000}])
    raise SystemExit("it has no end")
except anthropic.BadRequestError as error:
    assert "prompt is too long" in error.body["error"]["message"], error.body

tool = {"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"enum": ["Oslo", "Rome"]}}, "required": ["city"]}}
if "--tools" in sys.argv:
    called = client.messages.create(
        model=model, max_tokens=90, messages=question, tools=[tool], tool_choice={"type": "any"}
    )
    use = called.content[-1]
    assert called.stop_reason == "tool_use" and use.type == "tool_use", called
    assert use.name == "weather" and use.input["city"] in ("Oslo", "Rome"), use
    with client.messages.stream(
        model=model, max_tokens=90, messages=question, tools=[tool], tool_choice={"type": "any"}
    ) as stream:
        final = stream.get_final_message()
    assert final.content[-1].input["city"] in ("Oslo", "Rome"), final
    result = [
        {"role": "assistant", "content": [b.model_dump(exclude_none=True) for b in called.content]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "Rain"}]},
    ]
    last = client.messages.create(model=model, max_tokens=9, messages=question + result, tools=[tool])
    assert last.role == "assistant", last
print("anthropic", anthropic.__version__, "is content")
