"""PyPI's `instructor`, against a server whose model is the parrot: objects from tools, schemas and JSON, whole and in parts.

    instructor_client.py http://127.0.0.1:11435 KEY
"""

import sys
from importlib.metadata import version

import instructor
import openai
from pydantic import BaseModel

URL, KEY = sys.argv[1:3]


class Person(BaseModel):
    name: str
    age: int


def main():
    base = openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0)
    asked = [{"role": "user", "content": "Which person?"}]
    for mode in ("TOOLS", "TOOLS_STRICT", "JSON", "JSON_SCHEMA", "MD_JSON"):
        client = instructor.from_openai(base, mode=getattr(instructor.Mode, mode))
        person = client.chat.completions.create(model="parrot", messages=asked, response_model=Person, max_retries=0)
        assert person.name in ("Ada", "Grace"), (mode, person)
        parts = list(client.chat.completions.create_partial(model="parrot", messages=asked, response_model=Person, max_retries=0))
        assert parts[-1].age == person.age, (mode, parts)
    print("instructor", version("instructor"), "works")


main()
