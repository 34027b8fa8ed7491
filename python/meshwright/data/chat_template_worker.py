"""The process that renders chat templates: `python chat_template_worker.py SYS_PATH` answers requests until its input ends.

Request and answer: 4 bytes of length (little-endian), then a JSON object. A template comes with a model and is a program that strangers
wrote: Jinja's sandbox keeps it from Python's internals, and this process from the trainer's time, memory and files.
It imports nothing of Meshwright, so that it starts quickly.
"""

from __future__ import annotations

import json
import os
import resource
import struct
import sys
import time
from datetime import datetime
from typing import Any

MEMORY = 512 << 20  # beyond what the process takes before the first template
MOST_CHARACTERS = 1 << 24
MOST_TEMPLATES = 64  # compiled ones kept


def environment() -> Any:
    import jinja2.ext
    import jinja2.nodes
    import jinja2.sandbox

    class Generation(jinja2.ext.Extension):
        """`{% generation %}...{% endgeneration %}` marks the assistant's words for training; rendered, it is its content."""

        tags = {"generation"}

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            return jinja2.nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)

    def raise_exception(message: Any) -> None:
        raise jinja2.TemplateError(str(message))

    def to_json(value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    made = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols], cache_size=0
    )
    made.filters["tojson"] = to_json
    made.globals.pop("lipsum")
    made.globals["raise_exception"] = raise_exception
    made.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return made


# Makes Python read what it reads late: codecs, the parts of Jinja that report errors.
WARM_UP = """{% macro f(x) %}{{ x|upper }}{% endmacro %}{{ f('\\u00e9') }}{{ [1, 2]|tojson }}{{ '{}'.format(1) }}
{{ strftime_now('%d %b %Y') }}{{ ['b', 'a']|map('title')|sort|join(',') }}
{{ '<b>'|e|striptags }}{{ 'x'|urlize }}{{ raise_exception('x') }}"""


def limit(server: Server) -> None:
    """From here on no file is opened or written, and memory ends somewhere."""
    time.localtime()
    for template in (WARM_UP, "{{ 1 / 0 }}", "{% include 'x' %}", "{% if %}"):
        server.answer({"template": template, "variables": {}})
    with open("/proc/self/statm") as file:
        in_use = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + MEMORY, in_use + MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))


class Server:
    def __init__(self) -> None:
        self.environment = environment()
        self.compiled: dict[str, Any] = {}

    def answer(self, request: Any) -> dict[str, Any]:
        from jinja2 import TemplateError, TemplateSyntaxError
        from jinja2.exceptions import SecurityError

        try:
            return {"text": self._render(request["template"], request["variables"])}
        except TemplateSyntaxError as error:
            return {"error": f"line {error.lineno}: {error.message}"}
        except SecurityError as error:
            return {"error": f"it reaches for what templates may not touch: {error}"}
        except TemplateError as error:
            return {"error": str(error)}
        except MemoryError:
            return {"error": f"it needs more than {MEMORY >> 20} MiB of memory", "spent": True}
        except RecursionError:
            return {"error": "it calls itself too often"}
        except Exception as error:  # a template can raise anything
            return {"error": f"{type(error).__name__}: {error}"[:1000]}

    def _render(self, template: str, variables: dict[str, Any]) -> str:
        import jinja2

        compiled = self.compiled.get(template)
        if compiled is None:
            if len(self.compiled) >= MOST_TEMPLATES:
                self.compiled.clear()
            compiled = self.compiled[template] = self.environment.from_string(template)
        pieces, characters = [], 0
        for piece in compiled.generate(**variables):
            characters += len(piece)
            if characters > MOST_CHARACTERS:
                raise jinja2.TemplateError(f"it writes more than {MOST_CHARACTERS} characters")
            pieces.append(piece)
        return "".join(pieces)


def read(count: int) -> bytes:
    parts = []
    while count:
        part = os.read(0, min(count, 1 << 20))
        if not part:
            os._exit(0)
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def write(answer: dict[str, Any]) -> None:
    data = json.dumps(answer).encode()
    left = memoryview(struct.pack("<I", len(data)) + data)
    while left:
        left = left[os.write(1, left) :]


def main() -> None:
    sys.path[:] = json.loads(sys.argv[1])
    try:
        server = Server()
    except ImportError as error:
        write({"error": f"it needs the package jinja2: {error}"})
        return
    limit(server)
    write({"text": "ready"})
    while True:
        (length,) = struct.unpack("<I", read(4))
        request = json.loads(read(length))
        try:
            answer = server.answer(request)
            del request
            write(answer)
        except MemoryError:
            write({"error": f"it needs more than {MEMORY >> 20} MiB of memory", "spent": True})


if __name__ == "__main__":
    main()
