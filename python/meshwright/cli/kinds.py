"""The kinds of values a key may have: how each is read from command-line text and from JSON.

A reader gets text (command line) or a JSON value (run file) and returns the value, or raises ValueError; `wanted` completes the sentence
"expected ...".
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Kind:
    name: str
    wanted: str
    read: Callable[[Any], Any]


_INTEGER = re.compile(r"[+-]?\d[\d_]*")
_NUMBER = re.compile(r"[+-]?(\d[\d_]*\.?\d*|\.\d+)([eE][+-]?\d+)?")


def _integer(raw: Any) -> int:
    if isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    if isinstance(raw, str) and _INTEGER.fullmatch(raw):
        return int(raw)
    raise ValueError


def _number(raw: Any) -> float:
    if isinstance(raw, (int, float)) and not isinstance(raw, bool):
        return float(raw)
    if isinstance(raw, str) and _NUMBER.fullmatch(raw):
        return float(raw)
    raise ValueError


def _boolean(raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    if isinstance(raw, str) and raw.lower() in ("true", "yes", "on", "1", "false", "no", "off", "0"):
        return raw.lower() in ("true", "yes", "on", "1")
    raise ValueError


def _text(raw: Any) -> str:
    if isinstance(raw, str):
        return raw
    raise ValueError


def _path(raw: Any) -> str:
    if isinstance(raw, str) and raw and "\0" not in raw:
        return raw
    raise ValueError


def _texts(raw: Any) -> list[str]:
    if isinstance(raw, str) and raw.lstrip().startswith("["):
        raw = json.loads(raw)
    if isinstance(raw, str):
        return [raw]
    if isinstance(raw, list) and raw and all(isinstance(item, str) for item in raw):
        return list(raw)
    raise ValueError


def _length(raw: Any) -> int | float:
    """A whole number counts steps, a number with a point is a share of the run."""
    try:
        return _integer(raw)
    except ValueError:
        share = _number(raw)
        if 0 <= share <= 1:
            return share
        raise


def _model(raw: Any) -> str | dict[str, Any]:
    if isinstance(raw, dict):
        return raw
    return _path(raw)


INTEGER = Kind("integer", "a whole number", _integer)
NUMBER = Kind("number", "a number", _number)
BOOLEAN = Kind("boolean", "true or false", _boolean)
TEXT = Kind("text", "text", _text)
PATH = Kind("path", "a path", _path)
TEXTS = Kind("texts", 'text or a JSON list of texts such as ["a", "b"]', _texts)
LENGTH = Kind("steps or share", "a whole number of steps or a share of the run from 0.0 to 1.0", _length)
MODEL = Kind("model", "a model's name, a folder, a JSON file or an object of fields", _model)


def free_value(raw: Any) -> Any:
    """A value of a key that this table does not type (`model.FIELD`): JSON where the text is JSON, else the text itself."""
    if not isinstance(raw, str):
        return raw
    try:
        return json.loads(raw)
    except ValueError:
        return raw
