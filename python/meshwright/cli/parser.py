"""Arguments and run files -> Config, by the tables in `keys.py`. Every mistake is a UserError that names the key and what was expected."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from meshwright._core import UserError
from meshwright.cli.foreign import our_name
from meshwright.cli.keys import COMMANDS, OPEN_GROUPS, Key, keys_of
from meshwright.cli.kinds import BOOLEAN, INTEGER, LENGTH, NUMBER, TEXTS, free_value

_ASSIGNMENT = re.compile(r"([A-Za-z_][\w.\-]*)=(.*)", re.DOTALL)
_OPTION = re.compile(r"--([A-Za-z_][\w.\-]*)(?:=(.*))?", re.DOTALL)


@dataclass(frozen=True)
class Config:
    """The values of one call: every key of the command, defaults filled in; `given` names those that the user set."""

    command: str
    values: Mapping[str, Any]
    given: frozenset[str]

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def group(self, name: str) -> dict[str, Any]:
        """The values of the keys `name.*`, without the prefix."""
        prefix = name + "."
        return {key[len(prefix) :]: value for key, value in self.values.items() if key.startswith(prefix)}

    def free_keys(self) -> list[str]:
        """Keys that do not decide the numbers of the run: where it writes, how often it saves, on which mesh it runs."""
        return [name for name, key in keys_of(self.command).items() if not key.changes_result]


def nearest(name: str, names: Sequence[str]) -> str:
    """`; did you mean 'x'?`, or nothing."""
    near = get_close_matches(name, names, 1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def find_command(name: str) -> str:
    if name in COMMANDS:
        return name
    hint = nearest(name, list(COMMANDS)) or "."
    raise UserError(f"there is no command {name!r}{hint} The commands are {', '.join(COMMANDS)}.")


def parse(command: str, arguments: Sequence[str]) -> Config:
    """`arguments` are those after the command's name."""
    raw: dict[str, Any] = {}
    positional: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if option := _OPTION.fullmatch(argument):
            name, text = option[1], option[2]
            if text is None:
                text = _option_value(command, name, rest)
            _add(raw, name, text)
        elif argument.startswith("-") and argument != "-":
            raise UserError(f"expected key=value or --key value, found {argument!r}; options have no short forms")
        elif assignment := _ASSIGNMENT.fullmatch(argument):
            _add(raw, assignment[1], assignment[2])
        else:
            positional.append(argument)
    from_file = _place_positional(command, positional, raw)
    return make_config(command, {**from_file, **raw})


def make_config(command: str, raw: Mapping[str, Any]) -> Config:
    """Types and checks values by name: text as typed, or JSON values; fills in the defaults."""
    table = keys_of(command)
    values = {name: key.default_for(command) for name, key in table.items()}
    for name, value in raw.items():
        group = name.split(".")[0]
        if name in table:
            values[name] = _read(table[name], value)
        elif "." in name and command in OPEN_GROUPS.get(group, ()):
            values[name] = free_value(value)
        else:
            raise UserError(_unknown(command, name))
    missing = [key for key in table.values() if key.required and values[key.name] is None]
    if missing:
        wanted = ", ".join(f"{key.name} ({key.help})" for key in missing)
        raise UserError(f"{command} needs {wanted}. For example: {COMMANDS[command].example}")
    return Config(command, values, frozenset(raw))


def read_run_file(path: str) -> dict[str, Any]:
    """The keys of a JSON run file; nested objects become dotted names."""
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file, object_pairs_hook=_no_duplicates)
    except FileNotFoundError:
        raise UserError(f"run file {path!r} does not exist") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"run file {path!r} is not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"run file {path!r}: expected an object of keys, found {type(content).__name__}")
    return _flatten(content, path)


def _flatten(content: Mapping[str, Any], path: str, prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in content.items():
        full = prefix + name
        # An object under `model` is the model's own configuration, one value.
        inner = _flatten(value, path, full + ".") if isinstance(value, dict) and full != "model" else {full: value}
        for key in inner:
            if key in flat:
                raise UserError(f"run file {path!r} gives {key!r} twice")
        flat.update(inner)
    return flat


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for name, value in pairs:
        if name in content:
            raise ValueError(f"{name!r} is given twice")
        content[name] = value
    return content


def _option_value(command: str, name: str, rest: list[str]) -> str:
    """The text of `--name`: the next argument, or `true` for a boolean that none follows."""
    key = keys_of(command).get(name.replace("-", "_"))
    if key is None and "." not in name:
        raise UserError(_unknown(command, name.replace("-", "_")))
    if key is not None and key.kind is BOOLEAN:
        try:
            BOOLEAN.read(rest[0] if rest else "")
        except ValueError:
            return "true"
        return rest.pop(0)
    if not rest or _OPTION.fullmatch(rest[0]):
        raise UserError(f"--{name} needs a value: --{name} VALUE or {name}=VALUE")
    return rest.pop(0)


def _add(raw: dict[str, Any], name: str, text: str) -> None:
    name = name.replace("-", "_")
    if name in raw:
        raise UserError(f"{name!r} is given twice: {name}={raw[name]} and {name}={text}")
    raw[name] = text


def _place_positional(command: str, positional: list[str], raw: dict[str, Any]) -> dict[str, Any]:
    """Puts arguments without `=` under the command's own key; returns what a run file among them says."""
    about = COMMANDS[command]
    files = [argument for argument in positional if about.run_file and argument.endswith(".json")]
    if len(files) > 1:
        raise UserError(f"expected at most one run file, found {' and '.join(files)}")
    others = [argument for argument in positional if argument not in files]
    if not others:
        return read_run_file(files[0]) if files else {}
    key = keys_of(command).get(about.positional or "")
    if key is None:
        raise UserError(f"{command} takes key=value and a run file, found {others[0]!r}. For example: {about.example}")
    if key.kind is not TEXTS and len(others) > 1:
        raise UserError(f"{command} takes one {key.name}, found {' and '.join(others)}")
    if key.name in raw:
        raise UserError(f"{key.name!r} is given twice: {others[0]} and {key.name}={raw[key.name]}")
    raw[key.name] = others if key.kind is TEXTS else others[0]
    return read_run_file(files[0]) if files else {}


def _read(key: Key, raw: Any) -> Any:
    if key.optional and (raw is None or (isinstance(raw, str) and raw.lower() == "none")):
        return None
    found = raw if isinstance(raw, str) else json.dumps(raw)
    wanted = key.kind.wanted + (" or none" if key.optional else "")
    try:
        value = key.kind.read(raw)
    except ValueError:
        raise UserError(f"{key.name}: expected {wanted}, found {found!r}") from None
    if key.choices and value not in key.choices:
        raise UserError(f"{key.name}: expected {key.range_text()}, found {found!r}{nearest(found, key.choices)}")
    if key.kind in (INTEGER, NUMBER, LENGTH) and not _in_range(key, value):
        raise UserError(f"{key.name}: expected {wanted} {key.range_text()}, found {found}")
    return value


def _in_range(key: Key, value: float) -> bool:
    return (
        (key.low is None or value >= key.low)
        and (key.high is None or value <= key.high)
        and (key.above is None or value > key.above)
        and (key.below is None or value < key.below)
        and value not in (float("inf"), float("-inf"))
    )


def _unknown(command: str, name: str) -> str:
    table = keys_of(command)
    more = f"`meshwright {command} --help` lists the keys of {command}."
    if foreign := our_name(name):
        ours, source = foreign
        if ours in table or ours.split(".")[0] in OPEN_GROUPS and command in OPEN_GROUPS[ours.split(".")[0]]:
            return f"unknown key {name!r}: {source}'s {name} is called {ours!r} here"
    elsewhere = [other for other in COMMANDS if name in keys_of(other)]
    if elsewhere:
        return f"{command} has no key {name!r}; it belongs to {', '.join(elsewhere)}. {more}"
    return f"unknown key {name!r}{nearest(name, list(table)) or '.'} {more}"
