"""PyPI's `openai`, its Responses, against the server: texts, streams, schemas, errors, and tools where the template knows them."""

import sys

import openai
import pydantic

url, key = sys.argv[1], sys.argv[2]
client = openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)
question = "What is the capital of Mongolia?"

response = client.responses.create(model="gpt-any", input=question, temperature=0)
assert response.status == "completed" and response.output_text, response
assert response.usage.total_tokens > response.usage.output_tokens > 0, response
text = response.output_text

kinds, pieces = [], []
with client.responses.stream(model="any", input=question, temperature=0) as stream:
    for event in stream:
        kinds.append(event.type)
        if event.type == "response.output_text.delta":
            pieces.append(event.delta)
    final = stream.get_final_response()
assert "".join(pieces) == text == final.output_text, (pieces, text)
assert kinds[0] == "response.created" and kinds[-1] == "response.completed", kinds

items = [
    {"role": "developer", "content": [{"type": "input_text", "text": "Be brief."}]},
    {"role": "user", "content": [{"type": "input_text", "text": question}]},
]
cut = client.responses.create(model="any", instructions="Answer.", input=items, max_output_tokens=2)
assert cut.status == "incomplete" and cut.incomplete_details.reason == "max_output_tokens", cut


class Answer(pydantic.BaseModel):
    yes: bool


parsed = client.responses.parse(model="any", input=question, text_format=Answer)
assert isinstance(parsed.output_parsed.yes, bool), parsed
for wrong in ({"input": [{"role": "wizard", "content": "x"}]}, {"input": "x", "previous_response_id": "resp_1"}):
    try:
        client.responses.create(model="any", **wrong)
        raise SystemExit(f"{wrong} was let in")
    except openai.BadRequestError as error:
        assert error.param, error

tool = {
    "type": "function", "name": "weather", "strict": True,
    "parameters": {"type": "object", "properties": {"city": {"enum": ["Oslo", "Rome"]}}, "required": ["city"]},
}
if "--tools" in sys.argv:
    called = client.responses.create(model="any", input=question, tools=[tool], tool_choice="required")
    call = called.output[-1]
    assert call.type == "function_call" and call.name == "weather", called
    assert '"city"' in call.arguments, call
    told = [call.model_dump(exclude_none=True), {"type": "function_call_output", "call_id": call.call_id, "output": "Rain"}]
    last = client.responses.create(model="any", input=items + told, tools=[tool], max_output_tokens=9)
    assert last.output, last
print("openai", openai.__version__, "is content with Responses")
