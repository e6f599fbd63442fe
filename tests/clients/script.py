"""What the parrot of these tests says: answers and calls that the suites of LangChain, the kits of npm and the agents look for.

    script.py PARROT.gguf
"""

import sys

from parrot import call, write

JOKE = '{"setup": "Why did the cat cross the road?", "punchline": "To nap."}'

SCRIPT = [
    # What follows the result of a tool.
    ("last.role == 'tool'", "The tool has told me: all is well."),
    # LangChain's standard suites.
    ("'こんにちは' in asked", call("unicode_customer", customer_name="こんにちは株式会社", description="会社")),
    ("'unicode_customer' in names", call("unicode_customer", customer_name="你好啊集团", description="公司")),
    ("'magic_function_no_args' in names", call("magic_function_no_args")),
    ("'magic_function' in names", call("magic_function", input=3)),
    ("'greeting_generator' in names", call("greeting_generator", answer_style="pirate")),
    ("'my_adder_tool' in names", call("my_adder_tool", a=3, b=4)),
    ("'get_weather' in names", call("get_weather", location="San Francisco, CA")),
    ("'Joke' in names", call("Joke", setup="Why do cats purr?", punchline="They idle.")),
    ("'JokeDict' in names", call("JokeDict", setup="What do cats read?", punchline="Mews.")),
    ("'joke' in asked", JOKE),
    # npm's kits and instructor.
    ("'weather' in names", call("weather", city="Oslo")),
    ("'Person' in names", call("Person", name="Ada", age=36)),
    ("'json' in names", call("json", name="Grace", age=85)),
    ("'PartialPerson' in names", call("PartialPerson", name="Ada", age=36)),
    ("'person' in asked", '{"name": "Grace", "age": 85}'),
    # Agents.
    ("'Bash' in names", "I look.\n" + call("Bash", command="echo airrun-was-here > note.txt", description="Writes a note")),
    ("'exec_command' in names", "I try.\n" + call("exec_command", cmd="echo airrun-was-here > note.txt")),
    ("'shell' in names", "I see.\n" + call("shell", command=["bash", "-lc", "echo airrun-was-here > note.txt"])),
    ("'shell_command' in names", "I do.\n" + call("shell_command", command="echo airrun-was-here > note.txt")),
    ("true", "Hello there, you who ask."),
]

if __name__ == "__main__":
    write(sys.argv[1], SCRIPT)
