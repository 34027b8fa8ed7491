"""Generator: text generation with a KV cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meshwright import _core
from meshwright._core import UserError
from meshwright.model import Model

OnText = Callable[[int, str], None]


@dataclass(frozen=True)
class Generation:
    """One answer: new tokens only."""

    text: str | None
    """None when the model has no tokenizer."""
    token_ids: list[int]
    finish_reason: str
    """"eos", "length" or "stop" (a stop string)."""
    logprobs: list[float]
    """Natural logarithm of each new token's probability under the model, before temperature and cuts."""


class Generator:
    """Continues prompts.

    texts = Generator(model).generate(["Once"], max_new_tokens=64, do_sample=True, temperature=0.8, top_p=0.95)
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self._generator = _core.TextGenerator(model._session)
        self._session = model._session

    def generate(
        self,
        prompts: Any,
        *,
        max_new_tokens: int = 64,
        do_sample: bool = False,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        seed: int = 0,
        eos_token_id: int | Sequence[int] | None | str = "model",
        pad_token_id: int | None = None,
        stop_strings: Sequence[str] = (),
        attention_mask: Any = None,
        return_details: bool = False,
        on_text: OnText | None = None,
    ) -> Any:
        """New tokens only, in the form that the prompts have: strings, lists of token ids, or a 2-D integer array (padded).

        `eos_token_id=None` never stops before `max_new_tokens`. `attention_mask` marks padding of a 2-D array (left or right); positions
        count from the first real token. `return_details=True` gives `Generation` objects. `on_text(index, text)` is called with each
        new piece of text as it is made.

        Raises:
            UserError: empty prompts, ids outside the vocabulary, a length beyond the model's positions, options out of range,
                strings without a tokenizer.
        """
        ids, form = self._encode(prompts, attention_mask)
        eos = self._eos_ids(eos_token_id)
        requests = [
            {
                "prompt": prompt,
                "max_new_tokens": max_new_tokens,
                "eos_ids": eos,
                "id": index,
                "do_sample": do_sample,
                "temperature": float(temperature),
                "top_k": top_k,
                "top_p": float(top_p),
                "min_p": float(min_p),
                "seed": seed,
            }
            for index, prompt in enumerate(ids)
        ]
        follower = _Follower(self.model.tokenizer, len(ids), list(stop_strings), on_text)
        outputs = self._generator.generate(requests, follower if follower.active else None)
        results = [self._result(follower, i, *output) for i, output in enumerate(outputs)]
        if return_details:
            return results
        if form == "text":
            return [result.text for result in results]
        if form == "lists":
            return [result.token_ids for result in results]
        return self._padded([result.token_ids for result in results], pad_token_id, eos)

    def _encode(self, prompts: Any, attention_mask: Any) -> tuple[list[list[int]], str]:
        if isinstance(prompts, str):
            raise UserError("generate: expected a list of prompts, found one string; write [prompt]")
        if isinstance(prompts, Sequence) and all(isinstance(prompt, str) for prompt in prompts):
            if self.model.tokenizer is None:
                raise UserError("generate: the model has no tokenizer; pass token ids, or set model.tokenizer")
            return [self._ids_of(prompt) for prompt in prompts], "text"
        if isinstance(prompts, Sequence):
            return [[int(token) for token in prompt] for prompt in prompts], "lists"
        array = np.asarray(prompts)
        if array.ndim != 2 or array.dtype.kind not in "iu":
            raise UserError(
                "generate: expected strings, lists of token ids or an integer array [batch, seq], "
                f"found {array.dtype} of shape {array.shape}"
            )
        mask = np.ones(array.shape, bool) if attention_mask is None else np.asarray(attention_mask).astype(bool)
        if mask.shape != array.shape:
            raise UserError(f"generate: attention_mask has the shape {mask.shape}, the prompts {array.shape}")
        return [row[keep].tolist() for row, keep in zip(array, mask, strict=True)], "array"

    def _ids_of(self, prompt: str) -> list[int]:
        tokenizer = self.model.tokenizer
        assert tokenizer is not None
        ids = tokenizer.encode(prompt)
        if ids:
            return ids
        # An empty prompt starts a new text: after the token that ends the one before.
        start = self.model.config.bos_token_id
        start = tokenizer.eos_token_id if start is None else start
        if start is None:
            raise UserError("generate: the prompt is empty and the model has no token that begins a text")
        return [int(start)]

    def _eos_ids(self, asked: int | Sequence[int] | None | str) -> list[int]:
        if asked is None:
            return []
        if asked == "model":
            return self.model.eos_token_ids
        if isinstance(asked, int):
            return [asked]
        if isinstance(asked, str):
            raise UserError(f"eos_token_id: expected token ids or None, found {asked!r}")
        return [int(token) for token in asked]

    def _result(self, follower: _Follower, index: int, ids: list[int], logprobs: list[float], reason: str) -> Generation:
        text = follower.final_text(index, ids)
        return Generation(text, list(ids), "stop" if reason == "stopped" else reason, list(logprobs))

    @staticmethod
    def _padded(rows: list[list[int]], pad: int | None, eos: list[int]) -> NDArray[np.int64]:
        longest = max((len(row) for row in rows), default=0)
        filler = pad if pad is not None else eos[0] if eos else 0
        return np.array([row + [filler] * (longest - len(row)) for row in rows], np.int64).reshape(len(rows), longest)


class _Follower:
    """Decodes token by token: hands out text, finds stop strings."""

    def __init__(self, tokenizer: Any, count: int, stops: list[str], on_text: OnText | None) -> None:
        if (stops or on_text) and tokenizer is None:
            raise UserError("generate: stop strings and streaming need a tokenizer; set model.tokenizer")
        self._tokenizer, self._stops, self._on_text = tokenizer, stops, on_text
        self._ids: list[list[int]] = [[] for _ in range(count)]
        self._given = [0] * count
        self._cut: dict[int, str] = {}
        self.active = bool(stops or on_text)

    def __call__(self, index: int, token: int) -> bool:
        self._ids[index].append(token)
        text = self._tokenizer.decode(self._ids[index])
        end = min((at for stop in self._stops if (at := text.find(stop)) >= 0), default=-1)
        if end >= 0:
            text = self._cut[index] = text[:end]
        if self._on_text is not None:
            # A character may need several tokens; what could still become a stop string waits too.
            ready = text if end >= 0 else self._settled(text)
            if len(ready) > self._given[index]:
                self._on_text(index, ready[self._given[index] :])
                self._given[index] = len(ready)
        return end >= 0

    def _settled(self, text: str) -> str:
        if text.endswith("�"):
            text = text.rstrip("�")
        held = max((n for stop in self._stops for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0)
        return text[: len(text) - held]

    def final_text(self, index: int, ids: list[int]) -> str | None:
        if self._tokenizer is None:
            return None
        text: str = self._cut[index] if index in self._cut else self._tokenizer.decode(ids)
        if self._on_text is not None and len(text) > self._given[index]:
            self._on_text(index, text[self._given[index] :])
        return text
