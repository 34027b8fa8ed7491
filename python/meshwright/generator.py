"""Generator: text generation with a KV cache."""

from __future__ import annotations

import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meshwright import _core
from meshwright._core import UserError
from meshwright.data.tokenizer import Tokenizer
from meshwright.model import Model

OnText = Callable[[int, str], None]
OnEnd = Callable[[int], None]


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
        top_k: int | None = None,
        top_p: float = 1.0,
        min_p: float = 0.0,
        seed: int = 0,
        eos_token_id: int | Sequence[int] | None | str = "model",
        pad_token_id: int | None = None,
        stop_strings: str | Sequence[str] = (),
        attention_mask: Any = None,
        return_details: bool = False,
        on_text: OnText | None = None,
        on_end: OnEnd | None = None,
    ) -> Any:
        """New tokens only, in the form that the prompts have: strings, lists of token ids, or a 2-D integer array (padded).

        A list of messages (`{"role": "user", "content": "..."}`) is a prompt too, rendered by the model's chat template; its answer is a
        string.

        `eos_token_id=None` never stops before `max_new_tokens`. An answer depends on its prompt, the options and the seed, not on the
        prompts beside it; a prompt that stands several times in the list gets different samples. `attention_mask` marks padding of a
        2-D array (left or right); positions count from the first real token. `return_details=True` gives `Generation` objects.
        `on_text(index, text)` is called with each new piece of text as it is made, `on_end(index)` once when there is no more of it.

        Raises:
            UserError: empty prompts, ids outside the vocabulary, a length beyond the model's positions, options out of range,
                strings without a tokenizer, messages without a chat template.
        """
        ids, form = self._encode(prompts, attention_mask)
        eos = self._eos_ids(eos_token_id)
        options = {
            "max_new_tokens": _whole("max_new_tokens", max_new_tokens, 2**31),
            "eos_ids": eos,
            "do_sample": bool(do_sample),
            "temperature": float(temperature),
            "top_k": 0 if top_k is None else _whole("top_k", top_k, 2**31),
            "top_p": float(top_p),
            "min_p": float(min_p),
            "seed": _whole("seed", seed, 2**64),
        }
        requests = [{**options, "prompt": prompt, "id": random_id} for prompt, random_id in zip(ids, _random_ids(ids), strict=True)]
        continued = ids if form == "text" else [[]] * len(ids)
        follower = _Follower(self.model.tokenizer, continued, _stops(stop_strings), eos, max_new_tokens, on_text, on_end)
        outputs = self._generator.generate(requests, follower if follower.active else None)
        results = [self._result(follower, i, *output) for i, output in enumerate(outputs)]
        if return_details:
            return results
        if form in ("text", "chats"):
            return [result.text for result in results]
        if form == "lists":
            return [result.token_ids for result in results]
        pad = self.model.config.pad_token_id if pad_token_id is None else pad_token_id
        return self._padded([result.token_ids for result in results], pad, eos)

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template: str | None = None,
        template_variables: Mapping[str, Any] | None = None,
        on_text: Callable[[str], None] | None = None,
        **options: Any,
    ) -> Any:
        """The model's answer to a chat, as text; with `return_details=True` a `Generation`. Options as in `generate`.

        messages: dicts with `role` and `content`, the last one usually the user's. `tools`, `chat_template` and `template_variables` go to
        `Tokenizer.apply_chat_template`. `on_text(text)` is called with each new piece of the answer.
        """
        tokenizer = self._tokenizer_for("messages")
        ids = tokenizer.apply_chat_template(
            messages, tools=tools, chat_template=chat_template, add_generation_prompt=True, **(template_variables or {})
        )
        details = options.pop("return_details", False)
        follow = None if on_text is None else lambda index, text: on_text(text)
        (answer,) = self.generate([ids], return_details=True, on_text=follow, **options)
        return answer if details else answer.text

    def _tokenizer_for(self, what: str) -> Tokenizer:
        if self.model.tokenizer is None:
            raise UserError(f"generate: the model has no tokenizer for {what}; pass token ids, or set model.tokenizer")
        return self.model.tokenizer

    def _encode(self, prompts: Any, attention_mask: Any) -> tuple[list[list[int]], str]:
        if isinstance(prompts, str):
            raise UserError("generate: expected a list of prompts, found one string; write [prompt]")
        if isinstance(prompts, Sequence) and not prompts:
            return [], "lists"
        if isinstance(prompts, Sequence) and all(isinstance(prompt, str) for prompt in prompts):
            return [self._ids_of(prompt) for prompt in prompts], "text"
        if isinstance(prompts, Sequence) and any(isinstance(prompt, Mapping) for prompt in prompts):
            raise UserError("generate: expected a list of prompts, found one list of messages; write [messages], or use chat(messages)")
        if isinstance(prompts, Sequence) and all(_is_chat(prompt) for prompt in prompts):
            tokenizer = self._tokenizer_for("messages")
            return [self._checked(tokenizer.apply_chat_template(chat, add_generation_prompt=True)) for chat in prompts], "chats"
        if isinstance(prompts, Sequence):
            return [self._checked(prompt) for prompt in prompts], "lists"
        array = np.asarray(prompts)
        if array.ndim != 2 or array.dtype.kind not in "iu":
            raise UserError(
                "generate: expected strings, lists of token ids or an integer array [batch, seq], "
                f"found {array.dtype} of shape {array.shape}"
            )
        mask = np.ones(array.shape, bool) if attention_mask is None else np.asarray(attention_mask).astype(bool)
        if mask.shape != array.shape:
            raise UserError(f"generate: attention_mask has the shape {mask.shape}, the prompts {array.shape}")
        return [self._checked(row[keep].tolist()) for row, keep in zip(array, mask, strict=True)], "array"

    def _checked(self, prompt: Any) -> list[int]:
        if isinstance(prompt, (str, bytes)) or not hasattr(prompt, "__iter__"):
            raise UserError(f"generate: expected strings or lists of token ids, not both; found {prompt!r}")
        vocab = self.model.config.vocab_size
        for position, token in enumerate(tokens := list(prompt)):
            if not _is_whole(token):
                raise UserError(f"generate: expected whole numbers as token ids, found {token!r} at position {position} of a prompt")
            if not 0 <= token < vocab:
                raise UserError(f"generate: token id {token} at position {position} of a prompt is outside the vocabulary of {vocab}")
        return [int(token) for token in tokens]

    def _ids_of(self, prompt: str) -> list[int]:
        tokenizer = self._tokenizer_for("texts")
        if prompt.endswith((" ", "\t")):
            warnings.warn(
                f"the prompt {prompt!r} ends in a space; tokenizers join a space to the word after it, so leave it out", stacklevel=4
            )
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
        if isinstance(asked, str) and asked == "model":
            return self.model.eos_token_ids
        tokens = [asked] if _is_whole(asked) else asked
        vocab = self.model.config.vocab_size
        if isinstance(tokens, (str, bytes)) or not hasattr(tokens, "__iter__"):
            raise UserError(f"eos_token_id: expected token ids or None, found {asked!r}")
        listed = list(tokens)
        if any(not _is_whole(token) or not 0 <= token < vocab for token in listed):
            raise UserError(f"eos_token_id: expected token ids below {vocab} or None, found {asked!r}")
        return [int(token) for token in listed]

    def _result(self, follower: _Follower, index: int, ids: list[int], logprobs: list[float], reason: str) -> Generation:
        text = follower.final_text(index, ids)
        return Generation(text, list(ids), "stop" if reason == "stopped" else reason, list(logprobs))

    @staticmethod
    def _padded(rows: list[list[int]], pad: int | None, eos: list[int]) -> NDArray[np.int64]:
        longest = max((len(row) for row in rows), default=0)
        filler = pad if pad is not None else eos[0] if eos else 0
        return np.array([row + [filler] * (longest - len(row)) for row in rows], np.int64).reshape(len(rows), longest)


def _is_chat(prompt: Any) -> bool:
    return isinstance(prompt, (list, tuple)) and len(prompt) > 0 and all(isinstance(message, Mapping) for message in prompt)


def _is_whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _whole(name: str, value: Any, below: int) -> int:
    if not _is_whole(value) or not 0 <= value < below:
        raise UserError(f"generate: {name} is {value!r}; expected a whole number of at least 0")
    return int(value)


def _stops(strings: str | Sequence[str]) -> list[str]:
    stops = [strings] if isinstance(strings, str) else list(strings)
    if any(not isinstance(stop, str) or not stop for stop in stops):
        raise UserError(f"stop_strings: expected texts of at least one character, found {strings!r}")
    return stops


def _random_ids(prompts: list[list[int]]) -> list[int]:
    """What stands for a prompt in the random numbers: its tokens, and how many prompts like it came before."""
    seen: Counter[int] = Counter()
    ids = []
    for prompt in prompts:
        own = zlib.crc32(np.asarray(prompt, np.int32).tobytes())
        ids.append(own + (seen[own] << 32))
        seen[own] += 1
    return ids


class _Follower:
    """Decodes token by token: hands out text, finds stop strings. `continued`: the tokens before each text that it goes on from."""

    def __init__(
        self,
        tokenizer: Tokenizer | None,
        continued: list[list[int]],
        stops: list[str],
        eos: list[int],
        max_new_tokens: int,
        on_text: OnText | None,
        on_end: OnEnd | None,
    ) -> None:
        self.active = bool(stops or on_text or on_end)
        if self.active and tokenizer is None:
            raise UserError("generate: stop strings and streaming need a tokenizer; set model.tokenizer")
        self._tokenizer, self._stops, self._eos, self._most = tokenizer, stops, set(eos), max_new_tokens
        self._on_text, self._on_end = on_text, on_end
        self._continued = continued
        self._ids: list[list[int]] = [[] for _ in continued]
        self._given = [0] * len(continued)
        self._ended = [False] * len(continued)
        self._cut: dict[int, str] = {}

    def __call__(self, index: int, token: int) -> bool:
        self._ids[index].append(token)
        text = self._decode(index, self._ids[index])
        end = min((at for stop in self._stops if (at := text.find(stop)) >= 0), default=-1)
        if end >= 0:
            text = self._cut[index] = text[:end]
        if end >= 0 or token in self._eos or len(self._ids[index]) >= self._most:
            self._finish(index, text)
        elif not self._in_bytes(token):
            self._hand_out(index, self._settled(text))
        return end >= 0

    def _decode(self, index: int, ids: list[int]) -> str:
        assert self._tokenizer is not None
        before = self._continued[index]
        return self._tokenizer.decode_after(before, ids) if before else self._tokenizer.decode(ids)

    def _hand_out(self, index: int, text: str) -> None:
        if self._on_text is not None and len(text) > self._given[index]:
            self._on_text(index, text[self._given[index] :])
            self._given[index] = len(text)

    def _finish(self, index: int, text: str) -> None:
        self._hand_out(index, text)
        if self._on_end is not None and not self._ended[index]:
            self._on_end(index)
        self._ended[index] = True

    # A run of fallback bytes waits for its end: what comes may change how its first bytes are decoded.
    def _in_bytes(self, token: int) -> bool:
        assert self._tokenizer is not None
        return token in self._tokenizer.byte_fallback_ids

    # A character may need several tokens; what could still become a stop string waits too.
    def _settled(self, text: str) -> str:
        if text.endswith("�"):
            text = text.rstrip("�")
        held = max((n for stop in self._stops for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0)
        return text[: len(text) - held]

    def final_text(self, index: int, ids: list[int]) -> str | None:
        if self._tokenizer is None:
            return None
        text = self._cut[index] if index in self._cut else self._decode(index, ids)
        self._finish(index, text)
        return text
