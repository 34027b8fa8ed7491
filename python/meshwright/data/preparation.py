"""Text in, token shards out: `prepare`."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from meshwright._core import DataFolder, SplitWriter, UserError, make_folders, sync_folder, write_durably
from meshwright.data.documents import PathLike, Source, documents, find_sources, text_in
from meshwright.data.holding_back import FEWEST_HELD_BACK, TRAIN, VALIDATION, Ends, Rule, share_of_names, whole_documents
from meshwright.data.tokenizer import Tokenizer
from meshwright.data.tokenizer_files import TOKENIZER

DATASET = "dataset.json"
LEAST_CHARACTERS, MOST_CHARACTERS = 1 << 18, 1 << 24  # of a piece that is encoded by itself, where the text may be cut
BATCH_CHARACTERS, BATCH_PIECES = 1 << 22, 4096  # encoded by one call, by all threads
Validation = float | Callable[[str], bool] | Sequence[PathLike]


@dataclass(frozen=True)
class PrepareReport:
    """What a data folder was made of, and holds."""

    output: str
    files: int
    passed_over: int  # files in folders whose ending is not one of text
    vocab_size: int
    splits: dict[str, dict[str, int]]  # split -> num_tokens, num_documents, text_bytes, num_shards
    seconds: float
    reused: bool  # the folder already held this data set

    def _sum(self, key: str) -> int:
        return sum(split[key] for split in self.splits.values())

    @property
    def documents(self) -> int:
        return self._sum("num_documents")

    @property
    def tokens(self) -> int:
        return self._sum("num_tokens")

    @property
    def text_bytes(self) -> int:
        return self._sum("text_bytes")

    @property
    def tokens_per_byte(self) -> float:
        return self.tokens / max(self.text_bytes, 1)

    def __str__(self) -> str:
        lines = [
            f"{self.output}: {'already there' if self.reused else f'written in {self.seconds:.1f} s'}; {self.files:,} files, "
            f"{self.documents:,} documents, {self.text_bytes:,} bytes, {self.tokens:,} tokens ({self.tokens_per_byte:.3f} per byte), "
            f"vocabulary {self.vocab_size:,}"
        ]
        if self.passed_over:
            lines.append(f"  {self.passed_over:,} files were passed over for their ending")
        lines += [
            f"  {name}: {split['num_documents']:,} documents, {split['text_bytes']:,} bytes, {split['num_tokens']:,} tokens"
            for name, split in self.splits.items()
        ]
        return "\n".join(lines)


def prepare(
    inputs: PathLike | Iterable[PathLike] | Iterable[str] | Iterable[Mapping[str, Any]],
    output: PathLike,
    tokenizer: PathLike = "train",
    vocab: int = 4096,
    validation: Validation = 0.05,
    field: str = "text",
    *,
    seed: int = 0,
    eos_token: str | None = None,
    shard_tokens: int = 1 << 25,
    overwrite: bool = False,
) -> PrepareReport:
    """Writes a data folder for `TokenDataset`: token shards, dataset.json and the tokenizer's files.

    inputs: a path or a list of paths: files and folders (searched in sorted order for text, JSON lines and parquet, each also as .gz but
        parquet); a file with an ending of its own is plain text. Or any other iterable: of strings, or of dicts with `field`
        (for texts in a list, `iter(texts)`).
    output: the folder to make. If it holds this very data set already, nothing is done; another one is an error unless `overwrite`.
    tokenizer: "train" a byte-level BPE of at most `vocab` tokens on the training split, or a tokenizer.json, or a folder with one.
        Text never becomes a special token; every document ends in the end-of-text token (`eos_token`, or the tokenizer's own).
    validation: a share of the documents, drawn by the SHA-256 of their names (of few long documents: the last part of each);
        or a function of the name; or the paths of what is held back. Names are relative to the folder given; `path:line` in JSON lines.
    field: the field of JSON objects and dicts, or the column of parquet files, that holds the text.

    Memory stays bounded: a shard, or the longest document's tokens, and for tokenizers other than byte-level BPE its text.
    Raises UserError: missing input (with the nearest names), nothing to read, a file that is not UTF-8 text, a missing field, an output
    that cannot be made or is something else, a full disk. What was written so far is removed.
    """
    start = time.monotonic()
    target = Path(os.path.abspath(output))
    shown = os.fspath(output)
    if not callable(validation) and not isinstance(validation, Sequence) and not 0 <= validation < 1:
        raise UserError(f"validation: expected a share of at least 0 and below 1, found {validation}")
    given = None if os.fspath(tokenizer) == "train" else Tokenizer.from_path(tokenizer, eos_token)
    _check_target(target, shown, overwrite)
    make_folders(str(target.parent))
    unfinished = target.parent / f".{target.name}.unfinished-{os.getpid()}"
    shutil.rmtree(unfinished, ignore_errors=True)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, unfinished, ignore_errors=True)
        make_folders(str(unfinished))
        plan, passed_over = _plan(inputs, validation, field, seed, unfinished, target)
        settings = {
            "tokenizer": "train" if given is None else _digest(sorted((name, _digest(content)) for name, content in given.files.items())),
            "vocab": vocab if given is None else given.vocab_size,
            "eos_token": eos_token,
            "validation": _shown_validation(validation),
            "field": field,
            "seed": seed,
            "shard_tokens": shard_tokens,
            "inputs": _digest([(source.name, *_state_of(source), rule is HELD_BACK) for source, rule in plan]),
        }
        if not overwrite and (report := _existing(target, shown, settings)) is not None:
            return report
        if given is None:
            given = Tokenizer.train(_texts(plan, field, cuts=True, only=TRAIN), vocab, *([eos_token] if eos_token else []))
        splits = _write_shards(plan, field, given, unfinished, shard_tokens)
        _check_splits(splits, validation, shown)
        (unfinished / SPOOL).unlink(missing_ok=True)
        given.save(unfinished)
        content = {
            "format": "meshwright-tokens",
            "version": 1,
            "vocab_size": given.vocab_size,
            "eos_id": given.eos_token_id,
            "tokenizer": TOKENIZER,
            "splits": splits,
            "settings": settings,
            "files": 0 if not _are_paths(inputs) else len(plan),
            "passed_over": passed_over,
        }
        write_durably(str(unfinished / DATASET), (json.dumps(content, indent=1) + "\n").encode())
        _commit(unfinished, target)
    return _report(target, shown, time.monotonic() - start, reused=False)


# Rules for what the caller has sorted already.
KEPT: Rule = whole_documents(lambda name: False)
HELD_BACK: Rule = whole_documents(lambda name: True)
SPOOL = "texts.jsonl"
Plan = list[tuple[Source, Rule]]


def _are_paths(inputs: Any) -> bool:
    return isinstance(inputs, (str, os.PathLike, list, tuple, set, frozenset))


def _plan(inputs: Any, validation: Validation, field: str, seed: int, unfinished: Path, target: Path) -> tuple[Plan, int]:
    """Every source with the rule that says which split it goes to, and the number of files passed over."""
    if _are_paths(inputs):
        sources, passed_over = find_sources([inputs] if isinstance(inputs, (str, os.PathLike)) else inputs)
        sources = [source for source in sources if target not in source.path.absolute().parents]
    else:
        sources, passed_over = [_spool(inputs, field, unfinished)], 0
    if isinstance(validation, Sequence):
        held_back, more = find_sources([validation] if isinstance(validation, str) else validation)
        paths = {source.path.resolve() for source in held_back}
        plan = [(source, KEPT) for source in sources if source.path.resolve() not in paths] + [(source, HELD_BACK) for source in held_back]
        passed_over += more
    else:
        rule = _rule(sources, validation, field, seed)
        plan = [(source, rule) for source in sources]
    if not plan:
        listed = (
            ", ".join(map(str, [inputs] if isinstance(inputs, (str, os.PathLike)) else list(inputs)[:5]))
            if _are_paths(inputs)
            else "inputs"
        )
        raise UserError(f"expected text to prepare, found no file of a known kind in {listed or 'an empty list'} ({passed_over} others)")
    return plan, passed_over


def _rule(sources: list[Source], validation: float | Callable[[str], bool], field: str, seed: int) -> Rule:
    if callable(validation):
        return whole_documents(validation)
    if validation == 0:
        return KEPT
    enough = math.ceil(FEWEST_HELD_BACK / validation)
    number = sum(1 for _ in islice((document for source in sources for document in documents(source, field)), enough))
    return whole_documents(share_of_names(validation, seed)) if number == enough else Ends(validation)


def _spool(items: Iterable[Any], field: str, folder: Path) -> Source:
    """Texts of an iterable, which may be read once only, as JSON lines: they are needed twice or more."""
    path = folder / SPOOL
    number = 0
    try:
        with open(path, "w", encoding="utf-8") as file:
            for number, item in enumerate(items, 1):
                file.write(json.dumps(text_in(item, field, f"inputs, item {number - 1}")) + "\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None
    if number == 0:
        raise UserError("expected text to prepare, found an iterable without items")
    return Source(path, "text")


def _texts(plan: Plan, field: str, cuts: bool, only: str | None = None) -> Iterator[str]:
    for _, text in _parts(plan, field, cuts, only):
        if text is not None:
            yield text


def _parts(plan: Plan, field: str, cuts: bool, only: str | None = None) -> Iterator[tuple[str, str | None]]:
    """(split, text) for each piece of a document, then (split, None)."""
    for source, rule in plan:
        for document in documents(source, field):
            for split, pieces in rule(document):
                if only in (None, split):
                    for text in _cut(pieces) if cuts else filter(None, ["".join(pieces)]):
                        yield split, text
                    yield split, None


def _cut(pieces: Iterator[str]) -> Iterator[str]:
    """The same text in pieces that end where every byte-level BPE cuts by itself: after a line, between visible characters."""
    held = ""
    for piece in pieces:
        held += piece
        if len(held) < LEAST_CHARACTERS:
            continue
        at = held.rfind("\n", 1, len(held) - 1)
        while at > 0 and (held[at + 1].isspace() or held[at - 1].isspace()):
            at = held.rfind("\n", 1, at)
        if at > 0:
            yield held[: at + 1]
            held = held[at + 1 :]
        elif len(held) >= MOST_CHARACTERS:
            yield held
            held = ""
    if held:
        yield held


def _write_shards(plan: Plan, field: str, tokenizer: Tokenizer, folder: Path, shard_tokens: int) -> dict[str, Any]:
    writers = {split: SplitWriter(str(folder), split, tokenizer.vocab_size, shard_tokens) for split in (TRAIN, VALIDATION)}
    text_bytes = dict.fromkeys(writers, 0)
    first_ids = tokenizer.first_ids()
    last_ids = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    begun = dict.fromkeys(writers, False)
    waiting: list[tuple[str, str | None]] = []

    def write() -> None:
        encoded = iter(tokenizer.encode_plain([text for _, text in waiting if text is not None]))
        for split, text in waiting:
            writer = writers[split]
            if text is not None:
                writer.append(next(encoded) if begun[split] else first_ids + next(encoded))
                text_bytes[split] += len(text.encode())
                begun[split] = True
            elif begun[split]:
                writer.append(last_ids)
                writer.end_document()
                begun[split] = False
        waiting.clear()

    characters = 0
    for split, text in _parts(plan, field, tokenizer.cuts_after_lines()):
        waiting.append((split, text))
        characters += len(text or "")
        if characters >= BATCH_CHARACTERS or len(waiting) >= BATCH_PIECES:
            write()
            characters = 0
    write()
    splits: dict[str, Any] = {}
    for split, writer in writers.items():
        shards = writer.finish()
        sums = {key: sum(shard[key] for shard in shards) for key in ("num_tokens", "num_documents")}
        splits[split] = {**sums, "text_bytes": text_bytes[split], "shards": shards}
    return splits


def _check_splits(splits: dict[str, Any], validation: Validation, shown: str) -> None:
    if not any(split["text_bytes"] for split in splits.values()):
        raise UserError(f"{shown}: expected text to prepare, found only empty documents")
    if not splits[TRAIN]["num_tokens"]:
        raise UserError(
            f"{shown}: expected documents to train on, found all of them held back by validation={_shown_validation(validation)}"
        )
    if validation != 0 and not splits[VALIDATION]["num_tokens"]:
        raise UserError(
            f"{shown}: expected validation={_shown_validation(validation)} to hold back something, found none of "
            f"{splits[TRAIN]['num_documents']} documents chosen; hold back more, or use validation=0"
        )


def _shown_validation(validation: Validation) -> Any:
    if callable(validation):
        return "a function"
    return "files" if isinstance(validation, Sequence) else validation


def _digest(value: Any) -> str:
    content = value if isinstance(value, bytes) else json.dumps(value).encode()
    return hashlib.sha256(content).hexdigest()


def _state_of(source: Source) -> tuple[Any, ...]:
    """What tells that a file is the one that was read before."""
    if source.path.name == SPOOL:
        with open(source.path, "rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
        return (digest.hexdigest(),)
    status = source.path.stat()
    return status.st_size, status.st_mtime_ns


def _check_target(target: Path, shown: str, overwrite: bool) -> None:
    if target.exists() and not target.is_dir():
        raise UserError(f"{shown}: expected a folder to write, found a file")
    if target.is_dir() and not (target / DATASET).exists() and any(target.iterdir()):
        raise UserError(f"{shown}: expected an empty folder, a data folder or none, found one that holds other files")


def _existing(target: Path, shown: str, settings: dict[str, Any]) -> PrepareReport | None:
    """The report of the data set that stands there with these settings; UserError when it has others."""
    if not (target / DATASET).exists():
        return None
    report = _report(target, shown, 0.0, reused=True)
    found = json.loads((target / DATASET).read_bytes()).get("settings", {})
    other = [key for key in settings if json.loads(json.dumps(settings[key])) != found.get(key)]
    if other:
        listed = "; ".join(
            "other or changed input files" if key == "inputs" else f"{key}={settings[key]!r} where it has {found.get(key)!r}"
            for key in other
        )
        raise UserError(
            f"{shown}: expected no other data set in the output, found one made with {listed}; use another output or overwrite=True"
        )
    return report


def _report(target: Path, shown: str, seconds: float, reused: bool) -> PrepareReport:
    folder = DataFolder(str(target))
    splits = folder.splits()
    for name, split in splits.items():
        if split["num_tokens"]:
            folder.open_split(name)
    content = json.loads((target / DATASET).read_bytes())
    return PrepareReport(shown, content.get("files", 0), content.get("passed_over", 0), folder.vocab_size, splits, seconds, reused)


def _commit(unfinished: Path, target: Path) -> None:
    """One rename makes the folder appear, whole."""
    sync_folder(str(unfinished))
    replaced = target.parent / f".{target.name}.replaced-{os.getpid()}"
    try:
        if (target / DATASET).exists():
            os.rename(target, replaced)
        os.rename(unfinished, target)
    except OSError as error:
        raise UserError(f"{target}: cannot be put in place: {error.strerror}") from None
    sync_folder(str(target.parent))
    shutil.rmtree(replaced, ignore_errors=True)
