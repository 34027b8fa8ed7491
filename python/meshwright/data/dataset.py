"""Batches out of a data folder: `TokenDataset`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from meshwright._core import DataFolder, Loader, Prefetcher, UserError
from meshwright.data.tokenizer import Tokenizer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Batch = dict[str, NDArray[np.int32]]

STATE_KEYS = ("samples", "epoch", "seed", "seq", "data")


class TokenDataset:
    """One split of a data folder (or a mixture of several) as batches; iterable, resumable, the same on any number of ranks.

    data = TokenDataset("data/", split="train", seq=1024, batch=8, seed=0)
    for batch in data: ...              # to the end of the epoch; the next loop goes on with the next epoch
    data.batch(17)                      # any step's batch, without what came before

    path: a folder that `prepare` wrote, or a dict folder -> weight: rows are then taken from each in proportion.
    shuffle: None means yes for the split "train". Without it there is one pass in the order of the files, the last row and the last
        batch filled up with padding, and every loop starts from the beginning (validation), but the first after `load_state_dict`.

    A batch is a dict of int32 arrays [batch, seq]:
        input_ids     the documents one after another, cut every `seq` tokens
        targets       the token after each; -100 where the next one is another document's
        segment_ids   number of the document within the row; -1 is padding
        position_ids  counted from the document's first token in the row
    Raises UserError: no data folder, no such split, damaged shards, `seq` longer than the split.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | Mapping[str, float],
        split: str = "train",
        seq: int = 1024,
        batch: int = 8,
        seed: int = 0,
        *,
        shuffle: bool | None = None,
    ) -> None:
        if batch < 1:
            raise UserError(f"batch: expected at least 1 sequence, found {batch}")
        if not 0 <= seed < 2**63:
            raise UserError(f"seed: expected 0 to {2**63 - 1}, found {seed}")
        weights = dict(path) if isinstance(path, Mapping) else {os.fspath(path): 1.0}
        if not weights:
            raise UserError("path: expected a data folder or a dict of them with weights, found an empty dict")
        self.split, self.seq, self.batch_size, self.seed = split, seq, batch, seed
        self.shuffle = split == "train" if shuffle is None else shuffle
        self.folders = [DataFolder(os.fspath(folder)) for folder in weights]
        self._splits = [folder.open_split(split) for folder in self.folders]
        self._sources = list(zip(self._splits, map(float, weights.values()), strict=True))
        self._loader = Loader(self._sources, seq, seed, self.shuffle)
        self._samples = 0
        self._resume_at = 0  # without shuffling: where the next loop begins, once
        if len(self.folders) > 1 and len({_tokenizer_bytes(folder) for folder in self.folders}) > 1:
            raise UserError(f"path: expected data folders made with one tokenizer, found different ones in {', '.join(weights)}")

    @property
    def vocab_size(self) -> int:
        size: int = self.folders[0].vocab_size
        return size

    @property
    def eos_token_id(self) -> int | None:
        token: int | None = self.folders[0].eos_id
        return token

    @property
    def num_tokens(self) -> int:
        return sum(split.num_tokens for split in self._splits)

    @property
    def num_documents(self) -> int:
        return sum(split.num_documents for split in self._splits)

    @property
    def num_targets(self) -> int:
        """Tokens that are predicted in one pass: all but each document's first."""
        return self.num_tokens - self.num_documents

    @property
    def text_bytes(self) -> int:
        """UTF-8 bytes of the text that the tokens were made from; bits per byte = nats * num_targets / text_bytes / ln 2."""
        return sum(folder.text_bytes(self.split) for folder in self.folders)

    @property
    def samples_per_epoch(self) -> int:
        samples: int = self._loader.samples_per_epoch
        return samples

    @property
    def tokens_per_epoch(self) -> int:
        """Tokens that one epoch feeds to a model: whole rows only when shuffled, so up to seq - 1 fewer than there are."""
        return self.samples_per_epoch * self.seq if self.shuffle else self.num_tokens

    @cached_property
    def tokenizer(self) -> Tokenizer | None:
        folder = self.folders[0]
        return None if folder.tokenizer is None else Tokenizer.from_path(os.path.join(folder.path, folder.tokenizer))

    def __len__(self) -> int:
        """Batches of the first epoch. An epoch may end inside a batch, so a later one may be a batch shorter."""
        return -(-self.samples_per_epoch // self.batch_size)

    def batch(self, step: int, first: int = 0, count: int | None = None) -> Batch:
        """Rows [first, first + count) of the batch of `step`: a pure function of its arguments and the seed."""
        rows = self.batch_size - first if count is None else count
        if step < 0 or first < 0 or rows < 0 or first + rows > self.batch_size:
            raise UserError(
                f"batch: expected a step of at least 0 and rows within {self.batch_size}, found step {step}, rows {first}..{first + rows}"
            )
        batch: Batch = self._loader.read(step * self.batch_size + first, rows)
        return batch

    def __iter__(self) -> Iterator[Batch]:
        return self.rows()

    def rows(self, first: int = 0, count: int | None = None) -> Iterator[Batch]:
        """Iterates over rows [first, first + count) of each batch, read ahead by a thread: what one rank needs."""
        rows = self.batch_size - first if count is None else count
        if first < 0 or rows < 1 or first + rows > self.batch_size:
            raise UserError(f"rows: expected some of the {self.batch_size} rows of a batch, found {first}..{first + rows}")
        sample = self._samples if self.shuffle else self._resume_at % self.samples_per_epoch
        self._resume_at = 0
        end = (sample // self.samples_per_epoch + 1) * self.samples_per_epoch
        batches = Prefetcher(self._loader, sample + first, self.batch_size, rows)
        while sample < end:
            batch = batches.next()
            sample += self.batch_size
            # Without shuffling the last batch is filled up with padding: the next one begins the next pass.
            self._samples = sample if self.shuffle or sample < end else 0
            yield batch

    def documents(self) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """All tokens [tokens] and the index of each document's first one [documents]; of one folder."""
        if len(self._splits) != 1:
            raise UserError(f"documents: expected a data set of one folder, found {len(self._splits)}")
        tokens, starts = self._splits[0].documents()
        return tokens, starts

    def state_dict(self) -> dict[str, Any]:
        """Where iteration stands: a few numbers that do not depend on batch size, ranks or mesh."""
        return {
            "samples": self._samples,
            "epoch": self._samples // self.samples_per_epoch,
            "seed": self.seed,
            "seq": self.seq,
            "data": "-".join(split.fingerprint for split in self._splits),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state_dict` was taken; UserError when that was another data set or another `seq`."""
        missing = [key for key in STATE_KEYS if key not in state]
        if missing:
            raise UserError(f"data state: expected the keys {', '.join(STATE_KEYS)}, found none of the name {missing[0]!r}")
        own = self.state_dict()
        for key, meaning in (("seq", "rows of the same length"), ("data", "the same data")):
            if state[key] != own[key]:
                raise UserError(f"data state: expected {meaning} as when it was saved ({key} {state[key]!r}), found {own[key]!r}")
        for key in ("samples", "seed"):
            if not isinstance(state[key], int) or isinstance(state[key], bool) or not 0 <= state[key] < 2**63:
                raise UserError(f"data state: expected a whole number of at least 0 for {key!r}, found {state[key]!r}")
        if state["seed"] != self.seed:
            self._loader = Loader(self._sources, self.seq, state["seed"], self.shuffle)
            self.seed = state["seed"]
        self._samples = self._resume_at = state["samples"]


def _tokenizer_bytes(folder: DataFolder) -> bytes:
    if folder.tokenizer is None:
        return b""
    with open(os.path.join(folder.path, folder.tokenizer), "rb") as file:
        return file.read()
