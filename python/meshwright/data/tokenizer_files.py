"""What the files around a tokenizer say: special tokens, added tokens, end-of-text ids, chat templates. Names -> contents, as read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meshwright._core import UserError

TOKENIZER, CONFIG, PIECES = "tokenizer.json", "tokenizer_config.json", "tokenizer.model"
TEMPLATE, TEMPLATES, OLD_TEMPLATE = "chat_template.jinja", "chat_templates", "chat_template.json"
COMPANIONS = (CONFIG, "special_tokens_map.json", "added_tokens.json", PIECES, TEMPLATE, OLD_TEMPLATE)
SPECIAL_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
LARGEST_FILE = 1 << 28
LARGEST_JSON = 1 << 25


@dataclass(frozen=True)
class AddedEntry:
    """A token that a configuration adds, or says more about."""

    id: int
    content: str
    special: bool = False
    normalized: bool = False
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False


def read_file(file: Path) -> bytes:
    try:
        if file.stat().st_size > LARGEST_FILE:
            raise UserError(f"{file}: expected at most {LARGEST_FILE} bytes, found {file.stat().st_size}")
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from None


def read_companions(folder: Path) -> dict[str, bytes]:
    """The files of a folder that belong to its tokenizer."""
    files = {name: read_file(folder / name) for name in COMPANIONS if (folder / name).is_file()}
    if (folder / TEMPLATES).is_dir():
        for file in sorted((folder / TEMPLATES).glob("*.jinja")):
            files[f"{TEMPLATES}/{file.name}"] = read_file(file)
    return files


def json_object(content: bytes | None, where: str) -> dict[str, Any]:
    """The JSON object in a file's content; empty where there is no file."""
    if content is None:
        return {}
    if len(content) > LARGEST_JSON:
        raise UserError(f"{where}: expected at most {LARGEST_JSON} bytes, found {len(content)}")
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: expected JSON, found {error}") from None
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected a JSON object, found {type(value).__name__}")
    return value


def beside(source: str, name: str) -> str:
    """The path of a file beside `source`, for errors."""
    return os.path.join(os.path.dirname(source), name)


def config_of(files: Mapping[str, bytes], source: str) -> dict[str, Any]:
    return json_object(files.get(CONFIG), beside(source, CONFIG))


def token_text(value: Any) -> str | None:
    """A token as configurations write it: its text, or an object with its text."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def special_tokens(files: Mapping[str, bytes], source: str) -> dict[str, str]:
    """`bos_token`, `eos_token`, ... -> text, as tokenizer_config.json says, else special_tokens_map.json."""
    tokens: dict[str, str] = {}
    for name in ("special_tokens_map.json", CONFIG):
        config = json_object(files.get(name), beside(source, name))
        tokens |= {key: text for key in SPECIAL_NAMES if (text := token_text(config.get(key))) is not None}
    return tokens


def added_entries(files: Mapping[str, bytes], source: str) -> list[AddedEntry]:
    """Tokens of `added_tokens_decoder` in tokenizer_config.json and of added_tokens.json, by id."""
    entries: dict[int, AddedEntry] = {}
    where = beside(source, "added_tokens.json")
    for content, id in json_object(files.get("added_tokens.json"), where).items():
        entries[_token_id(id, where)] = AddedEntry(int(id), content)
    where = beside(source, CONFIG)
    decoder = config_of(files, source).get("added_tokens_decoder", {})
    if not isinstance(decoder, dict):
        raise UserError(f"{where}, 'added_tokens_decoder': expected an object of tokens by id, found {type(decoder).__name__}")
    for key, value in decoder.items():
        id = _token_id(int(key) if key.isascii() and key.isdigit() and len(key) < 10 else key, where)
        text = token_text(value)
        if text is None or not text:
            raise UserError(f"{where}, 'added_tokens_decoder', {key}: expected a token with its content, found {value!r}")
        flags = {name: value.get(name) is True for name in ("special", "normalized", "lstrip", "rstrip", "single_word")}
        entries[id] = AddedEntry(id, text, **flags)
    return [entries[id] for id in sorted(entries)]


def _token_id(id: Any, where: str) -> int:
    if isinstance(id, bool) or not isinstance(id, int) or not 0 <= id < 1 << 30:
        raise UserError(f"{where}: expected token ids of added tokens, found {id!r}")
    return id


def add_entries(backend: Any, entries: list[AddedEntry], source: str) -> None:
    """Adds the tokens that the backend lacks behind its vocabulary, and makes special the ones that are."""
    from tokenizers import AddedToken

    for entry in entries:
        known = backend.token_to_id(entry.content)
        expected = backend.get_vocab_size(with_added_tokens=True) if known is None else known
        if entry.id != expected:
            raise UserError(
                f"{beside(source, CONFIG)}: expected the added token {entry.content!r} at id {expected}, found it at id {entry.id}"
            )
        if known is None or entry.special:
            token = AddedToken(
                entry.content,
                single_word=entry.single_word,
                lstrip=entry.lstrip,
                rstrip=entry.rstrip,
                normalized=entry.normalized,
                special=entry.special,
            )
            (backend.add_special_tokens if entry.special else backend.add_tokens)([token])


def generation_eos(folder: Path) -> list[int]:
    """Token ids that end a text by the folder's generation_config.json; empty where it says none."""
    file = folder / "generation_config.json"
    if not file.is_file():
        return []
    value = json_object(read_file(file), str(file)).get("eos_token_id")
    ids = [] if value is None else value if isinstance(value, list) else [value]
    if any(isinstance(id, bool) or not isinstance(id, int) or not 0 <= id < 1 << 30 for id in ids):
        raise UserError(f"{file}, 'eos_token_id': expected a token id or a list of them, found {value!r}")
    return list(dict.fromkeys(ids))


def model_type_of(folder: Path) -> str | None:
    """`model_type` of the config.json in a folder."""
    file = folder / "config.json"
    found = json_object(read_file(file), str(file)).get("model_type") if file.is_file() else None
    return found if isinstance(found, str) else None


def chat_templates(files: Mapping[str, bytes], source: str) -> dict[str, str]:
    """Name -> template; the one without a name is "default". Of several files chat_template.jinja wins, then tokenizer_config.json."""
    folder = f"{TEMPLATES}/"
    names = {name: name.removeprefix(folder).removesuffix(".jinja") for name in files if name.startswith(folder)}
    names |= {TEMPLATE: "default"} if TEMPLATE in files else {}
    if names:
        return {shown: _text(files[name], beside(source, name)) for name, shown in names.items()}
    for name in (CONFIG, OLD_TEMPLATE):
        where = f"{beside(source, name)}, 'chat_template'"
        value = json_object(files.get(name), beside(source, name)).get("chat_template")
        if isinstance(value, str):
            return {"default": value}
        if isinstance(value, list):
            value = (
                {entry.get("name"): entry.get("template") for entry in value} if all(isinstance(entry, dict) for entry in value) else value
            )
        if isinstance(value, dict) and all(isinstance(part, str) for pair in value.items() for part in pair):
            return dict(value)
        if value is not None:
            raise UserError(f"{where}: expected a text or a list of {{name, template}}, found {value!r}"[:500])
    return {}


def _text(content: bytes, where: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{where}, byte {error.start}: expected UTF-8 text, found the byte 0x{content[error.start]:02x}") from None
