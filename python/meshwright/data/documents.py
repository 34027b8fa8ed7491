"""Documents out of files, folders and iterables, a piece at a time.

for source in find_sources(["book.txt", "notes/"]):
    for document in documents(source, field="text"):
        for piece in document.open(): ...
"""

from __future__ import annotations

import codecs
import difflib
import gzip
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Union

from meshwright._core import UserError

PathLike = Union[str, "os.PathLike[str]"]

# What a folder is searched for. A file given by name may have any other ending: then it is plain text.
TEXT_ENDINGS = frozenset(
    ".txt .text .md .rst .tex .org .py .pyi .c .h .cpp .hpp .cc .cu .java .js .ts .go .rs .rb .sh .pl .lua .r .jl .scala .kt .swift "
    ".hs .ml .sql .html .htm .xml .yaml .yml .toml .ini .cfg .csv .tsv".split()
)
LINE_ENDINGS = frozenset({".jsonl", ".ndjson", ".json"})
PARQUET = ".parquet"
READ_BYTES = 1 << 20


@dataclass(frozen=True)
class Source:
    """A file and its name relative to the input that led to it (with `/` between folders): what the validation split goes by."""

    path: Path
    name: str

    @property
    def ending(self) -> str:
        """Lower-case ending, that of the packed file for .gz."""
        path = self.path.with_suffix("") if self.packed else self.path
        return path.suffix.lower()

    @property
    def packed(self) -> bool:
        return self.path.suffix.lower() == ".gz"


@dataclass(frozen=True)
class Document:
    name: str
    open: Callable[[], Iterator[str]]  # its text from the beginning, in pieces


def find_sources(inputs: Iterable[PathLike]) -> tuple[list[Source], int]:
    """The files below `inputs`, each folder's in sorted order, and how many files in folders were passed over for their ending."""
    sources: list[Source] = []
    passed_over = 0
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            for source in _files_below(path):
                if source.ending in TEXT_ENDINGS or source.ending in LINE_ENDINGS or (source.ending == PARQUET and not source.packed):
                    sources.append(source)
                else:
                    passed_over += 1
        elif path.exists():
            if not path.is_file():
                raise UserError(f"{os.fspath(given)}: expected a file or a folder, found something else")
            sources.append(Source(path, path.name))
        else:
            raise UserError(f"inputs: expected files and folders, found {_shown(os.fspath(given))}, which does not exist{_nearest(path)}")
    return sources, passed_over


def documents(source: Source, field: str) -> Iterator[Document]:
    """The documents of one file: the whole of a text, each line of a JSONL file, each row of a parquet file."""
    if source.ending in LINE_ENDINGS:
        return _from_lines(source, field)
    if source.ending == PARQUET:
        return _from_parquet(source, field)
    return iter([Document(source.name, lambda: _text_of(source))])


def _files_below(folder: Path) -> list[Source]:
    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename}: cannot be listed: {error.strerror}")

    found = []
    for parent, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            path = Path(parent, name)
            if not name.startswith(".") and path.is_file():
                found.append(Source(path, path.relative_to(folder).as_posix()))
    return sorted(found, key=lambda source: source.name)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 200 else text[:200] + "...")


def _nearest(path: Path) -> str:
    if len(os.fspath(path)) > 200 or "\n" in os.fspath(path):
        return " (a list holds paths; to prepare texts, pass an iterator over them)"
    folder = path.parent
    while not folder.is_dir():
        path, folder = folder, folder.parent
        if path == folder:
            return ""
    names = difflib.get_close_matches(path.name, [entry.name for entry in folder.iterdir()], n=3, cutoff=0.5)
    return f" (in {os.fspath(folder)!r} there is {', '.join(map(repr, names))})" if names else ""


def _open(source: Source) -> IO[bytes]:
    try:
        file: Any = gzip.open(source.path, "rb") if source.packed else open(source.path, "rb")
    except OSError as error:
        raise UserError(f"{source.path}: cannot be opened: {error.strerror}") from None
    opened: IO[bytes] = file
    return opened


def _read_from(file: IO[bytes], source: Source, read: Callable[[], bytes]) -> bytes:
    try:
        return read()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{source.path}: expected a whole gzip file, found a damaged one: {error}") from None
    except OSError as error:
        raise UserError(f"{source.path}: cannot be read: {error.strerror}") from None


def _refuse_bytes(source: Source, position: int, byte: int) -> UserError:
    return UserError(f"{source.path}, byte {position}: expected UTF-8 text, found the byte 0x{byte:02x} (is it a binary file?)")


def _text_of(source: Source) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    position = 0
    with _open(source) as file:
        while True:
            block = _read_from(file, source, lambda: file.read(READ_BYTES))
            if (zero := block.find(0)) >= 0:
                raise _refuse_bytes(source, position + zero, 0)
            waiting = len(decoder.getstate()[0])
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                raise _refuse_bytes(source, position - waiting + error.start, error.object[error.start]) from None
            position += len(block)
            if text:
                yield text
            if not block:
                return


def _from_lines(source: Source, field: str) -> Iterator[Document]:
    with _open(source) as file:
        number = 0
        while line := _read_from(file, source, file.readline):
            number += 1
            if not line.strip():
                continue
            where = f"{source.path}, line {number}"
            try:
                item = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{where}: expected UTF-8, found the byte 0x{error.object[error.start]:02x} at byte {error.start}"
                ) from None
            except (ValueError, RecursionError) as error:
                raise UserError(f"{where}: expected one JSON object per line, found {error}") from None
            yield _of_text(f"{source.name}:{number}", text_in(item, field, where))


def text_in(item: Any, field: str, where: str) -> str:
    """The text of one item: a string, or a dict that has it under `field`."""
    if isinstance(item, str):
        text: Any = item
    elif not isinstance(item, dict):
        raise UserError(f"{where}: expected an object with the field {field!r}, found {type(item).__name__}")
    elif field not in item:
        near = difflib.get_close_matches(field, [str(key) for key in item], n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise UserError(f"{where}: no field {field!r}{hint}; it has {', '.join(repr(str(key)) for key in list(item)[:20]) or 'none'}")
    else:
        text = item[field]
    if not isinstance(text, str):
        raise UserError(f"{where}: expected a string in the field {field!r}, found {type(text).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{where}: expected text, found half of a surrogate pair at character {error.start}") from None
    return text


def _of_text(name: str, text: str) -> Document:
    return Document(name, lambda: iter([text]))


def _from_parquet(source: Source, field: str) -> Iterator[Document]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise UserError(
            f'{source.path}: reading parquet needs pyarrow, which is not installed: pip install "meshwright[parquet]"'
        ) from None
    if source.packed:
        raise UserError(f"{source.path}: expected parquet as it is (it compresses itself), found it packed with gzip")
    try:
        file = parquet.ParquetFile(source.path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{source.path}: expected a parquet file, found one that does not open: {error}") from None
    with file:
        names = file.schema_arrow.names
        if field not in names:
            near = difflib.get_close_matches(field, names, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise UserError(f"{source.path}: no column {field!r}{hint}; it has {', '.join(map(repr, names))}")
        number = 0
        try:
            for batch in file.iter_batches(batch_size=256, columns=[field]):
                for text in batch.column(0).to_pylist():
                    number += 1
                    if text is not None:
                        yield _of_text(f"{source.name}:{number}", text_in({field: text}, field, f"{source.path}, row {number}"))
        except pa.ArrowException as error:
            raise UserError(f"{source.path}: cannot be read after row {number}: {error}") from None
