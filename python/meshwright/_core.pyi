# Made by `make stubs`; change the bindings instead.
"""
The C++ core of Meshwright. The package `meshwright` is its typed, documented face.
"""

from __future__ import annotations
import collections.abc
import numpy
import numpy.typing
import typing

__all__: list[str] = [
    "DataFolder",
    "InternalError",
    "Loader",
    "Prefetcher",
    "Session",
    "SplitWriter",
    "TextGenerator",
    "TokenSplit",
    "TrainCheckpointer",
    "TrainStep",
    "UserError",
    "adapt_batch",
    "checkpoint_name",
    "checkpoint_problem",
    "find_model_config",
    "huggingface_config_text",
    "list_tensors",
    "load_checkpoint",
    "make_folders",
    "model_costs",
    "model_names",
    "newest_checkpoint",
    "ops",
    "override_model_config",
    "parse_model_config",
    "read_tensor_bytes",
    "read_trainer_state",
    "remove_leftovers",
    "save_model",
    "sync_folder",
    "write_durably",
    "write_safetensors",
]

class UserError(ValueError):
    pass

class InternalError(RuntimeError):
    pass

class Session:
    def __init__(self, config: str, dtype: str, mesh: collections.abc.Mapping[str, int], rules: typing.Any, threads: int) -> None: ...
    def first_not_finite(self, arg0: dict[str, typing.Any], arg1: float) -> str: ...
    def forward(self, arg0: dict[str, typing.Any], arg1: collections.abc.Sequence[str]) -> dict[str, typing.Any]: ...
    def gradients(self, arg0: dict[str, typing.Any], arg1: float) -> tuple[float, dict[str, typing.Any]]: ...
    def initialize(self, arg0: int) -> None: ...
    def load(self, arg0: str) -> None: ...
    def local_shard(self, arg0: str, arg1: int) -> tuple[numpy.typing.NDArray[typing.Any], list[int], list[str]]: ...
    def loss(self, arg0: dict[str, typing.Any], arg1: float) -> float: ...
    def parameters(self) -> list[typing.Any]: ...
    def read_parameter(self, arg0: str, arg1: str, arg2: bool) -> numpy.typing.NDArray[typing.Any]: ...
    def rehome(self, arg0: str, arg1: collections.abc.Mapping[str, int], arg2: typing.Any, arg3: int) -> None: ...
    def write_parameter(self, arg0: str, arg1: numpy.typing.NDArray[numpy.float32]) -> None: ...
    @property
    def dtype(self) -> str: ...
    @property
    def has_masters(self) -> bool: ...
    @property
    def num_ranks(self) -> int: ...

class TrainStep:
    def __init__(
        self, session: Session, optimizer: dict[str, typing.Any], microbatches: int, remat: str, decay_embeddings: bool
    ) -> None: ...
    def bytes_in_use(self, arg0: int) -> int: ...
    def explain(self, arg0: int, arg1: int, arg2: str) -> str: ...
    def peak_bytes(self, arg0: dict[str, typing.Any]) -> int: ...
    def profile(self, arg0: dict[str, typing.Any], arg1: float, arg2: float, arg3: int) -> list[typing.Any]: ...
    def read_state(self, arg0: str) -> numpy.typing.NDArray[typing.Any]: ...
    def run(self, arg0: dict[str, typing.Any], arg1: float, arg2: float) -> tuple[float, float, bool]: ...
    def state_names(self) -> list[str]: ...
    def write_state(self, arg0: str, arg1: numpy.typing.NDArray[numpy.float32]) -> None: ...
    @property
    def steps(self) -> int: ...
    @steps.setter
    def steps(self, arg1: int) -> None: ...

class TrainCheckpointer:
    def __init__(self) -> None: ...
    def poll(self) -> bool: ...
    def save(
        self,
        arg0: Session,
        arg1: TrainStep,
        arg2: str,
        arg3: collections.abc.Sequence[tuple[str, bytes]],
        arg4: int,
        arg5: str,
        arg6: str,
        arg7: int,
    ) -> None: ...
    def staging_bytes(self) -> int: ...
    def wait(self) -> None: ...

class TextGenerator:
    def __init__(self, arg0: Session) -> None: ...
    def generate(self, arg0: list[typing.Any], arg1: typing.Any) -> list[typing.Any]: ...

class SplitWriter:
    """
    Writes the token shards of one split: SplitWriter(folder, split, vocab_size).
    """
    def __init__(self, folder: str, split: str, vocab_size: int, shard_tokens: int = 33554432) -> None: ...
    def append(self, ids: collections.abc.Sequence[int]) -> None:
        """
        Adds token ids to the current document.
        """
    def end_document(self) -> None:
        """
        Ends the current document; one without tokens is left out.
        """
    def finish(self) -> list[typing.Any]:
        """
        Writes what is left and describes every shard: file, num_tokens, num_documents, checksum.
        """

class TokenSplit:
    """
    The memory-mapped shards of one split as one stream of tokens.
    """
    def documents(self) -> tuple[typing.Any, ...]:
        """
        (tokens i32[tokens], starts i64[documents]): everything, read and checked.
        """
    @property
    def fingerprint(self) -> str: ...
    @property
    def num_documents(self) -> int: ...
    @property
    def num_tokens(self) -> int: ...
    @property
    def vocab_size(self) -> int: ...

class DataFolder:
    """
    A folder that `prepare` wrote, its dataset.json checked.
    """
    def __init__(self, path: str) -> None: ...
    def open_split(self, name: str) -> TokenSplit: ...
    def splits(self) -> dict[str, typing.Any]:
        """
        Split name -> num_tokens, num_documents, text_bytes, num_shards.
        """
    def text_bytes(self, split: str) -> int: ...
    @property
    def eos_id(self) -> int | None: ...
    @property
    def path(self) -> str: ...
    @property
    def tokenizer(self) -> str | None: ...
    @property
    def vocab_size(self) -> int: ...

class Loader:
    """
    Rows of batches as a pure function of their number.
    """
    def __init__(self, sources: collections.abc.Sequence[tuple[TokenSplit, float]], seq: int, seed: int, shuffle: bool) -> None: ...
    def read(self, first: int, rows: int) -> dict[str, typing.Any]:
        """
        Samples [first, first + rows): input_ids, targets, segment_ids, position_ids, i32[batch, seq] each.
        """
    @property
    def samples_per_epoch(self) -> int: ...

class Prefetcher:
    """
    Reads the next batches in a thread of its own.
    """
    def __init__(self, loader: Loader, first: int, stride: int, rows: int) -> None: ...
    def next(self) -> dict[str, typing.Any]: ...

def adapt_batch(batch: dict[str, typing.Any], vocab_size: int) -> dict[str, typing.Any]:
    """
    A user's batch as a model takes it: input_ids, targets, segment_ids, position_ids i32[batch, seq], loss_weights f32[batch, seq], num_targets, weight_sum.
    """

def checkpoint_name(arg0: int) -> str: ...
def checkpoint_problem(folder: str) -> str | None:
    """
    Why a folder is not a whole checkpoint, or None.
    """

def find_model_config(arg0: str, arg1: str) -> tuple[str, str]: ...
def huggingface_config_text(arg0: str, arg1: str) -> str: ...
def list_tensors(path: str, stem: str = "model") -> list[typing.Any]:
    """
    Tensors of a Hugging Face folder or one .safetensors file, sorted by name: name, dtype as stored, shape, bytes, file.
    """

def load_checkpoint(arg0: Session, arg1: TrainStep, arg2: str, arg3: bool) -> tuple[str, str]: ...
def make_folders(path: str) -> None:
    """
    Makes a folder and its parents; UserError when it cannot.
    """

def model_costs(arg0: str, arg1: float) -> dict[str, typing.Any]: ...
def model_names(arg0: str) -> list[str]: ...
def newest_checkpoint(folder: str) -> dict[str, typing.Any]:
    """
    The newest whole checkpoint of a run's folder: path and step (None when there is none) and, for each newer one that is not whole, which file is wrong and why.
    """

def ops() -> list[typing.Any]:
    """
    Every op of the registry: name, family (its file in cpp/ops), doc, num_operands (None: checked by its type rule), own_roles (False: every dim is mapped), differentiable, decomposes, elementwise, view, collective, passes_partial_sums, in_place (operands that a result may overwrite).
    """

def override_model_config(arg0: str, arg1: str) -> str: ...
def parse_model_config(arg0: str, arg1: str) -> str: ...
def read_tensor_bytes(path: str, name: str, stem: str = "model") -> bytes:
    """
    The stored bytes of one tensor, row-major and little-endian.
    """

def read_trainer_state(arg0: str) -> dict[str, typing.Any]: ...
def remove_leftovers(arg0: str) -> list[str]: ...
def save_model(arg0: Session, arg1: str, arg2: str, arg3: collections.abc.Sequence[tuple[str, bytes]]) -> None: ...
def sync_folder(path: str) -> None:
    """
    Makes the entries of a folder durable.
    """

def write_durably(path: str, bytes: bytes) -> None:
    """
    Writes a small file and fsyncs it; UserError when the disk is full.
    """

def write_safetensors(
    path: str,
    tensors: collections.abc.Sequence[tuple[str, str, collections.abc.Sequence[int], bytes]],
    metadata: collections.abc.Mapping[str, str] = {"format": "pt"},
) -> None:
    """
    Writes (name, dtype, shape, bytes) tuples as one safetensors file.
    """
