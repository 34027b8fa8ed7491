"""meshwright generate: continuations of prompts."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import Any

from meshwright.cli.ingredients import open_model, say
from meshwright.cli.parser import Config

_SEPARATOR = "-" * 40 + "\n"


class LiveTexts:
    """Prints answers in the order of their prompts: the first unfinished one as it is made, the others as soon as it is their turn.

    With `on_text` and `on_end` of `mw.Generator.generate`; what is printed in the end is what a run without streaming prints.
    """

    def __init__(self, prompts: Sequence[str]) -> None:
        self._prompts = list(prompts)
        self._waiting = [""] * len(self._prompts)
        self._ended = [False] * len(self._prompts)
        self._current = -1  # so that a mistake in the request is told before anything is printed

    def on_text(self, index: int, text: str) -> None:
        self._begin()
        if index == self._current:
            self._write(text)
        else:
            self._waiting[index] += text

    def on_end(self, index: int) -> None:
        self._begin()
        self._ended[index] = True
        while self._current < len(self._prompts) and self._ended[self._current]:
            self._current += 1
            more = self._current < len(self._prompts)
            self._write("\n" + (_SEPARATOR + self._prompts[self._current] + self._waiting[self._current] if more else ""))

    def _begin(self) -> None:
        if self._current < 0:
            self._current = 0
            self._write(self._prompts[0])

    @staticmethod
    def _write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


def run(config: Config) -> None:
    import meshwright as mw

    prompts = config["prompt"]
    chat = config["chat"]
    for prompt in prompts:
        if not chat and prompt.endswith((" ", "\t")):
            say(f"warning: the prompt {prompt!r} ends in a space; tokenizers join a space to the word after it, so leave it out")
    model = open_model(config)
    sampling = {"temperature": config["temperature"], "top_k": config["top_k"], "top_p": config["top_p"], "min_p": config["min_p"]}
    sampling = {name: value for name, value in sampling.items() if value is not None} if config["temperature"] > 0 else {}
    stop = {"stop_strings": config["stop"]} if config["stop"] else {}
    repeated = [prompt for prompt in prompts for _ in range(config["samples"])]
    given = [[{"role": "user", "content": prompt}] for prompt in repeated] if chat else repeated
    streamed = sys.stdout.isatty() if config["stream"] is None else config["stream"]
    live = LiveTexts([""] * len(repeated) if chat else repeated) if streamed else None
    following: dict[str, Any] = {"on_text": live.on_text, "on_end": live.on_end} if live else {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the prompt .* ends in a space")  # said above, once per prompt
        texts = mw.Generator(model).generate(
            given,
            max_new_tokens=config["max_new_tokens"],
            do_sample=config["temperature"] > 0,
            seed=config["seed"],
            **sampling,
            **stop,
            **following,
        )
    if streamed:
        return
    for i, (prompt, text) in enumerate(zip(repeated, texts, strict=True)):
        if i:
            print(_SEPARATOR, end="")
        print(text if chat else prompt + text)
