"""Chat templates: messages -> the text that a model was trained to see, by the Jinja template that comes with the model."""

from __future__ import annotations

import atexit
import json
import os
import select
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from meshwright._core import UserError

SECONDS = 10.0  # for one rendering
SECONDS_TO_START = 60.0
MOST_BYTES = 1 << 26  # of a request
# What the process needs of this one's environment: how to start Python, and how to write dates.
ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "LC_TIME", "TZ", "LD_LIBRARY_PATH", "PYTHONHOME", "SYSTEMROOT")

Messages = Sequence[Mapping[str, Any]]


def render(
    messages: Messages,
    template: str,
    tools: Sequence[Mapping[str, Any]] | None = None,
    add_generation_prompt: bool = False,
    **variables: Any,
) -> str:
    """The text of a chat, as `transformers` renders it (blocks trimmed; `raise_exception`, `strftime_now`, `tojson`, loop controls).

    messages: dicts with `role` and `content`; keys whose value is None are left out. tools: JSON schemas. variables: what else the
    template may use, as `bos_token`. The template runs in Jinja's sandbox in a process of its own, with bounds on time, memory and output.
    Raises UserError: messages that are no list of dicts, values that are not plain data, whatever the template refuses, a bound reached.
    """
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Sequence) or not messages:
        raise UserError(f"messages: expected a list of at least one message, found {_shown(messages)}")
    for at, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise UserError(f"messages[{at}]: expected a dict with 'role' and 'content', found {_shown(message)}")
    chat = [{key: value for key, value in message.items() if value is not None} for message in messages]
    given = {"tools": tools, "documents": None, "add_generation_prompt": add_generation_prompt, **variables, "messages": chat}
    values = {name: _plain(value, name) for name, value in given.items()}
    request = json.dumps({"template": template, "variables": values}).encode()
    if len(request) > MOST_BYTES:
        raise UserError(f"messages: expected at most {MOST_BYTES} bytes with the template, found {len(request)}")
    answer = _RENDERER.ask(request, SECONDS)
    if "error" in answer:
        raise UserError(f"the chat template failed: {answer['error']}")
    text: str = answer["text"]
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise UserError("the chat template failed: its text holds half of a surrogate pair, which is no character")
    return text


def _shown(value: Any) -> str:
    return (
        repr(value) if isinstance(value, str) and len(value) < 100 else f"{type(value).__name__}{' without items' if value == [] else ''}"
    )


def _plain(value: Any, where: str, depth: int = 0) -> Any:
    """The value in the types of JSON."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if depth > 100:
        raise UserError(f"{where}: expected at most 100 levels of lists and dicts, found more")
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise UserError(f"{where}: expected texts as keys, found {key!r}")
        return {key: _plain(item, f"{where}[{key!r}]", depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{where}[{at}]", depth + 1) for at, item in enumerate(value)]
    raise UserError(f"{where}: expected texts, numbers, lists and dicts, found {type(value).__name__}")


class _Renderer:
    """The process of chat_template_worker.py: started when first asked, again after a bound was reached."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.process: subprocess.Popen[bytes] | None = None

    def ask(self, request: bytes, seconds: float) -> dict[str, Any]:
        with self.lock:
            if self.process is None or self.process.poll() is not None:
                self._start()
            try:
                answer = self._exchange(request, seconds)
            except BaseException:
                self.stop()
                raise
            if answer.pop("spent", False):
                self.stop()
            return answer

    def _start(self) -> None:
        if not sys.executable:
            raise UserError("chat templates run in a Python process of their own, and this program does not say where Python is")
        worker = os.path.join(os.path.dirname(os.path.abspath(__file__)), "chat_template_worker.py")
        environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
        try:
            self.process = subprocess.Popen(
                [sys.executable, worker, json.dumps([path for path in sys.path if path])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                bufsize=0,
                start_new_session=True,  # Ctrl-C is for this process alone
            )
        except OSError as error:
            raise UserError(f"the process for chat templates cannot be started: {error.strerror}") from None
        try:
            started = self._exchange(b"", SECONDS_TO_START)
        except BaseException:
            self.stop()
            raise
        if "error" in started:
            self.stop()
            raise UserError(f"chat templates cannot be rendered: {started['error']}")

    def _exchange(self, request: bytes, seconds: float) -> dict[str, Any]:
        assert self.process is not None and self.process.stdin is not None
        deadline = time.monotonic() + seconds
        if request:
            try:
                self._write(struct.pack("<I", len(request)) + request)
            except OSError:
                raise UserError("the chat template failed: its process has ended") from None
        (length,) = struct.unpack("<I", self._read(4, deadline, seconds))
        answer: dict[str, Any] = json.loads(self._read(length, deadline, seconds))
        return answer

    def _write(self, data: bytes) -> None:
        assert self.process is not None and self.process.stdin is not None
        left = memoryview(data)
        while left:
            left = left[os.write(self.process.stdin.fileno(), left) :]

    def _read(self, count: int, deadline: float, seconds: float) -> bytes:
        assert self.process is not None and self.process.stdout is not None
        file = self.process.stdout.fileno()
        poll = select.poll()
        poll.register(file, select.POLLIN)
        parts = []
        while count:
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                raise UserError(f"the chat template failed: it takes longer than {seconds:g} seconds")
            part = os.read(file, min(count, 1 << 20))
            if not part:
                raise UserError("the chat template failed: its process has ended")
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def stop(self) -> None:
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


_RENDERER = _Renderer()
atexit.register(_RENDERER.stop)


def _forget() -> None:
    """A forked process has one of its own: answers must not cross."""
    global _RENDERER
    _RENDERER = _Renderer()
    atexit.register(_RENDERER.stop)


os.register_at_fork(after_in_child=_forget)
