"""tokenizer.json and tokenizer_config.json for vocabularies that are stored in another form."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from meshwright._core import UserError
from meshwright.data.byte_level import CUTTINGS
from meshwright.data.sentencepiece_model import PieceModel, backend_of_pieces, read_piece_model
from meshwright.data.tiktoken_ranks import backend_of_ranks, find_encoding, looks_like_ranks, read_ranks, special_ids
from meshwright.data.tokenizer_files import CONFIG, TOKENIZER, add_entries, added_entries, config_of, special_tokens


def with_tokenizer_json(
    files: Mapping[str, bytes], name: str, source: str, model_type: str | None = None, encoding: str | None = None
) -> dict[str, bytes]:
    """`files` and the tokenizer.json that `files[name]`, a SentencePiece or tiktoken file, stands for; the others stay as they are."""
    if name.endswith(".tiktoken") or looks_like_ranks(files[name]):
        return _of_ranks(files, name, source, model_type, encoding)
    if encoding is not None:
        raise UserError(f"encoding: expected a tiktoken file, found {source}, a SentencePiece model")
    return _of_pieces(files, name, source)


def _of_pieces(files: Mapping[str, bytes], name: str, source: str) -> dict[str, bytes]:
    model = read_piece_model(files[name], source)
    config = config_of(files, source)
    if config.get("add_prefix_space") is False:
        model.dummy_prefix = False
    backend = backend_of_pieces(model, prefix_every_chunk=config.get("legacy") is True)
    add_entries(backend, added_entries(files, source), source)
    return finished(files, backend, tokens_of_pieces(model), source, add_bos=model.name(model.bos_id) is not None)


def tokens_of_pieces(model: PieceModel) -> dict[str, str]:
    ids = {"bos_token": model.bos_id, "eos_token": model.eos_id, "unk_token": model.unk_id, "pad_token": model.pad_id}
    return {key: name for key, id in ids.items() if (name := model.name(id)) is not None}


def _of_ranks(files: Mapping[str, bytes], name: str, source: str, model_type: str | None, encoding: str | None) -> dict[str, bytes]:
    ranks = read_ranks(files[name], source)
    found = find_encoding(len(ranks), os.path.basename(source), model_type, encoding, source)
    # Releases of one vocabulary name their reserved tokens differently: a configuration knows best.
    entries = added_entries(files, source)
    special = {entry.content: entry.id for entry in entries} or special_ids(found, len(ranks))
    backend = backend_of_ranks(ranks, found, special, source)
    tokens = {"eos_token": found.eos} | ({} if found.bos is None else {"bos_token": found.bos})
    return finished(files, backend, tokens, source, add_bos=CUTTINGS[found.cutting].add_bos)


def finished(files: Mapping[str, bytes], backend: Any, tokens: Mapping[str, str], source: str, add_bos: bool) -> dict[str, bytes]:
    """`files` with the backend, which puts around a text what the configuration asks for, and with a configuration if they have none.

    `tokens`: special tokens where the files name none. `add_bos`: whether a text begins with one where they do not say.
    """
    config = config_of(files, source)
    tokens = {**tokens, **special_tokens(files, source)}
    tokens = {key: token for key, token in tokens.items() if backend.token_to_id(token) is not None}
    around = {
        "bos_token": config.get("add_bos_token") if isinstance(config.get("add_bos_token"), bool) else add_bos,
        "eos_token": config.get("add_eos_token") is True,
    }
    _put_around(backend, *(tokens[key] if wanted and key in tokens else None for key, wanted in around.items()))
    done = dict(files)
    done[TOKENIZER] = backend.to_str().encode()
    if CONFIG not in files:
        written = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **tokens,
            "add_bos_token": bool(around["bos_token"] and "bos_token" in tokens),
            "clean_up_tokenization_spaces": False,
            "model_max_length": 10**30,
        }
        done[CONFIG] = (json.dumps(written, indent=2, ensure_ascii=False) + "\n").encode()
    return done


def _put_around(backend: Any, first: str | None, last: str | None) -> None:
    from tokenizers import processors

    if first is None and last is None:
        return
    one = [*([first] if first else []), "$A", *([last] if last else [])]
    two = [*one, *([f"{first}:1"] if first else []), "$B:1", *([f"{last}:1"] if last else [])]
    ids = [(token, backend.token_to_id(token)) for token in dict.fromkeys((first, last)) if token]
    backend.post_processor = processors.TemplateProcessing(single=one, pair=two, special_tokens=ids)
