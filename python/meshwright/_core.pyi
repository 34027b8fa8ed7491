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
    "Hardware",
    "InternalError",
    "Loader",
    "Prefetcher",
    "Program",
    "ProgramRunner",
    "Recording",
    "Session",
    "SplitWriter",
    "TextGenerator",
    "TokenSplit",
    "Trace",
    "TraceOps",
    "TrainCheckpointer",
    "TrainPlanSpec",
    "TrainStep",
    "UserError",
    "abort_ranks",
    "adapt_batch",
    "any_rank",
    "check_agreement",
    "checkpoint_name",
    "checkpoint_problem",
    "config_for_weights",
    "find_model_config",
    "find_rules",
    "gather_texts",
    "gguf_config",
    "gguf_metadata",
    "huggingface_config_text",
    "join_ranks",
    "kernels_in_use",
    "leave_ranks",
    "list_tensors",
    "list_weights",
    "load_checkpoint",
    "machine_facts",
    "make_folders",
    "measure_peak_flops",
    "measure_read_bandwidth",
    "model_costs",
    "model_names",
    "mpi_library",
    "mpirun_rank",
    "mpirun_size",
    "newest_checkpoint",
    "ops",
    "override_model_config",
    "parameter_tensors",
    "parse_model_config",
    "processors_per_rank",
    "ranks_barrier",
    "ranks_joined",
    "read_tensor",
    "read_tensor_bytes",
    "read_trainer_state",
    "remat_candidates",
    "remat_policies",
    "remove_leftovers",
    "save_model",
    "stored_dtype",
    "stored_parts",
    "sync_folder",
    "time_op",
    "time_openblas",
    "write_durably",
    "write_safetensors",
]

class UserError(ValueError):
    pass

class InternalError(RuntimeError):
    pass

class Recording:
    def __init__(self) -> None: ...
    @property
    def places(self) -> dict[int, str]: ...
    @property
    def slices(self) -> numpy.typing.NDArray[numpy.int64]: ...
    @property
    def threads_per_rank(self) -> int: ...
    @property
    def work(self) -> list[typing.Any]: ...

class Session:
    def __init__(self, config: str, dtype: str, mesh: collections.abc.Mapping[str, int], rules: typing.Any, threads: int) -> None: ...
    def first_not_finite(self, arg0: dict[str, typing.Any], arg1: float) -> str: ...
    def forward(self, arg0: dict[str, typing.Any], arg1: collections.abc.Sequence[str]) -> dict[str, typing.Any]: ...
    def gradients(self, arg0: dict[str, typing.Any], arg1: float, arg2: dict[str, typing.Any]) -> tuple[float, dict[str, typing.Any]]: ...
    def initialize(self, arg0: int) -> None: ...
    def load(self, arg0: str) -> None: ...
    def local_shard(self, arg0: str, arg1: int | None) -> tuple[numpy.typing.NDArray[typing.Any], list[int], list[str]]: ...
    def loss(self, arg0: dict[str, typing.Any], arg1: float) -> float: ...
    def read_tensor(self, arg0: str, arg1: str, arg2: bool) -> numpy.typing.NDArray[typing.Any]: ...
    def rehome(
        self,
        dtype: str,
        mesh: collections.abc.Mapping[str, int],
        rules: typing.Any,
        interleave: int,
        threads: int,
        expert_rows_factor: float,
    ) -> None: ...
    def tensors(self) -> list[typing.Any]: ...
    def weights_hash(self) -> str: ...
    def write_tensor(self, arg0: str, arg1: numpy.typing.NDArray[numpy.float32]) -> None: ...
    @property
    def dtype(self) -> str: ...
    @property
    def has_masters(self) -> bool: ...
    @property
    def num_ranks(self) -> int: ...

class TrainStep:
    def __init__(
        self,
        session: Session,
        optimizer: dict[str, typing.Any],
        microbatches: int,
        remat: str,
        memory_bytes: int,
        decay_embeddings: bool,
        losses: dict[str, typing.Any],
        reduce_dtype: str,
        most_in_flight: int,
        pipeline: str,
    ) -> None: ...
    def bubble(self, arg0: dict[str, typing.Any]) -> float: ...
    def bytes_in_use(self, arg0: int) -> int: ...
    def counted_traffic(self, arg0: dict[str, typing.Any], arg1: int) -> list[typing.Any]: ...
    def explain(self, arg0: int, arg1: int, arg2: str) -> str: ...
    def host_bytes_in_use(self, arg0: int) -> int: ...
    def peak_bytes(self, fields: dict[str, typing.Any], rank: int | None = None) -> int: ...
    def planned_traffic(self, arg0: dict[str, typing.Any], arg1: int) -> list[typing.Any]: ...
    def read_state(self, arg0: str) -> numpy.typing.NDArray[numpy.float32]: ...
    def record(self, recording: Recording | None) -> None: ...
    def remat(self, arg0: int, arg1: int) -> str: ...
    def run(self, arg0: dict[str, typing.Any], arg1: float, arg2: float) -> tuple[float, float, bool, dict[str, list[float]]]: ...
    def state_names(self) -> list[str]: ...
    def transfer_seconds(self, arg0: dict[str, typing.Any], arg1: int) -> float: ...
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

class Hardware:
    """
    A chip and the network between chips: a file of configs/hardware.
    """
    def __init__(self, text: str, source: str) -> None: ...
    @property
    def bandwidth_efficiency(self) -> float: ...
    @property
    def flops_efficiency(self) -> float: ...
    @property
    def kernels(self) -> str: ...
    @property
    def memory_bandwidth(self) -> float: ...
    @property
    def memory_bytes(self) -> float: ...
    @property
    def name(self) -> str: ...
    @property
    def network(self) -> list[typing.Any]: ...
    @property
    def note(self) -> str: ...
    @property
    def peak_flops(self) -> dict[str, float]: ...

class TrainPlanSpec:
    def __init__(
        self,
        *,
        config: str,
        dtype: str,
        mesh: collections.abc.Mapping[str, int],
        rules: typing.Any,
        optimizer: dict[str, typing.Any],
        decay_embeddings: bool,
        remat: str,
        microbatches: int,
        losses: dict[str, typing.Any],
        batch: int,
        seq: int,
        expert_rows_factor: float,
        reduce_dtype: str,
        most_in_flight: int,
        pipeline: str,
        interleave: int,
    ) -> None: ...
    def explain(self, after: str, hardware: Hardware | None = None) -> str: ...
    def hash(self, hardware: Hardware | None = None) -> str: ...
    def report(self) -> dict[str, typing.Any]: ...
    def report_on(self, hardware: Hardware, settings: dict[str, typing.Any]) -> dict[str, typing.Any]:
        """
        report, and what the step takes on a chip: its time, and memory over it.
        """
    @property
    def num_ranks(self) -> int: ...

class Program:
    @staticmethod
    def parse(arg0: str) -> Program: ...
    def differentiate(self, arg0: str, arg1: collections.abc.Sequence[str]) -> Program: ...
    def hash(self) -> int: ...
    def inputs(self) -> dict[str, typing.Any]: ...
    def num_ops(self) -> int: ...
    def outputs(self) -> dict[str, typing.Any]: ...
    def run_reference(self, arg0: dict[str, typing.Any], arg1: bool) -> dict[str, typing.Any]: ...
    def to_text(self, sources: bool = False) -> str: ...
    def with_captures(self, arg0: collections.abc.Sequence[str]) -> Program: ...
    @property
    def name(self) -> str: ...

class ProgramRunner:
    def __init__(self, program: Program, check_finite: bool, threads: int) -> None: ...
    def run(self, arg0: Program, arg1: dict[str, typing.Any]) -> dict[str, typing.Any]: ...

class Trace:
    def __init__(self, name: str, immediate: bool, check_finite: bool, dims: collections.abc.Sequence[str]) -> None: ...
    def at(self, arg0: str) -> None: ...
    def declare(self, arg0: str) -> None: ...
    def finish(self) -> Program: ...
    def given(
        self, arg0: str, arg1: str, arg2: collections.abc.Sequence[tuple[str, int]], arg3: numpy.typing.NDArray[typing.Any]
    ) -> int: ...
    def input(self, arg0: str, arg1: str, arg2: collections.abc.Sequence[tuple[str, int]]) -> int: ...
    def output(self, arg0: str, arg1: int) -> None: ...
    def scope(self) -> str: ...
    def set_scope(self, arg0: str) -> None: ...
    def type(self, arg0: int) -> tuple[typing.Any, ...]: ...
    def value(self, arg0: int) -> numpy.typing.NDArray[typing.Any]: ...

class TraceOps:
    """
    Op functions over value ids of a Trace.
    """
    @staticmethod
    def adamw(
        arg0: Trace,
        arg1: int,
        arg2: int,
        arg3: int,
        arg4: int,
        arg5: int,
        arg6: int,
        arg7: int,
        arg8: int,
        arg9: float,
        arg10: float,
        arg11: float,
        arg12: float,
    ) -> tuple[int, int, int]: ...
    @staticmethod
    def argmax(arg0: Trace, arg1: int, arg2: str) -> int: ...
    @staticmethod
    def attention(
        arg0: Trace,
        arg1: int,
        arg2: int,
        arg3: int,
        arg4: int | None,
        arg5: int | None,
        arg6: float,
        arg7: bool,
        arg8: int,
        arg9: float,
        arg10: int | None,
        arg11: int,
    ) -> int: ...
    @staticmethod
    def binary(arg0: Trace, arg1: str, arg2: int, arg3: int) -> int: ...
    @staticmethod
    def broadcast_to(arg0: Trace, arg1: int, arg2: collections.abc.Sequence[tuple[str, int]]) -> int: ...
    @staticmethod
    def cache_write(arg0: Trace, arg1: int, arg2: int, arg3: int, arg4: int, arg5: bool) -> int: ...
    @staticmethod
    def cached_attention(
        arg0: Trace,
        arg1: int,
        arg2: int,
        arg3: int | None,
        arg4: int,
        arg5: int,
        arg6: float,
        arg7: int,
        arg8: float,
        arg9: int | None,
        arg10: int,
        arg11: bool,
        arg12: int,
    ) -> int: ...
    @staticmethod
    def cast(arg0: Trace, arg1: int, arg2: str) -> int: ...
    @staticmethod
    def chunk_segments(arg0: Trace, arg1: int, arg2: int, arg3: int) -> int: ...
    @staticmethod
    def clamped_swiglu(arg0: Trace, arg1: int, arg2: int, arg3: float, arg4: float) -> int: ...
    @staticmethod
    def combine(arg0: Trace, arg1: int, arg2: int, arg3: int, arg4: int | None) -> int: ...
    @staticmethod
    def concat(arg0: Trace, arg1: collections.abc.Sequence[int], arg2: str) -> int: ...
    @staticmethod
    def constant(arg0: Trace, arg1: float, arg2: str, arg3: collections.abc.Sequence[tuple[str, int]]) -> int: ...
    @staticmethod
    def copy(arg0: Trace, arg1: int) -> int: ...
    @staticmethod
    def cross_entropy(arg0: Trace, arg1: int, arg2: int, arg3: int, arg4: float) -> int: ...
    @staticmethod
    def dot(arg0: Trace, arg1: int, arg2: int, arg3: collections.abc.Sequence[str], arg4: str | None) -> int: ...
    @staticmethod
    def expert_of_rows(arg0: Trace, arg1: int, arg2: int) -> int: ...
    @staticmethod
    def expert_row_products(arg0: Trace, arg1: int, arg2: int, arg3: int, arg4: int) -> int: ...
    @staticmethod
    def from_expert_rows(arg0: Trace, arg1: int, arg2: int, arg3: int) -> int: ...
    @staticmethod
    def gated_activation(arg0: Trace, arg1: int, arg2: int, arg3: str) -> int: ...
    @staticmethod
    def gather_rows(arg0: Trace, arg1: int, arg2: int, arg3: str) -> int: ...
    @staticmethod
    def grouped_dot(arg0: Trace, arg1: int, arg2: int, arg3: int, arg4: collections.abc.Sequence[str]) -> int: ...
    @staticmethod
    def grouped_dot_weights(
        arg0: Trace, arg1: int, arg2: int, arg3: int, arg4: str, arg5: collections.abc.Sequence[tuple[str, int]]
    ) -> int: ...
    @staticmethod
    def iota(arg0: Trace, arg1: str, arg2: int) -> int: ...
    @staticmethod
    def layer_norm(arg0: Trace, arg1: int, arg2: int, arg3: int | None, arg4: float) -> int: ...
    @staticmethod
    def merge(arg0: Trace, arg1: int, arg2: collections.abc.Sequence[str], arg3: str) -> int: ...
    @staticmethod
    def pad(arg0: Trace, arg1: int, arg2: str, arg3: int, arg4: int) -> int: ...
    @staticmethod
    def random_normal(arg0: Trace, arg1: collections.abc.Sequence[tuple[str, int]], arg2: int, arg3: int, arg4: str) -> int: ...
    @staticmethod
    def random_uniform(arg0: Trace, arg1: collections.abc.Sequence[tuple[str, int]], arg2: int, arg3: int, arg4: str) -> int: ...
    @staticmethod
    def reduce_max(arg0: Trace, arg1: int, arg2: collections.abc.Sequence[str]) -> int: ...
    @staticmethod
    def reduce_mean(arg0: Trace, arg1: int, arg2: collections.abc.Sequence[str]) -> int: ...
    @staticmethod
    def reduce_min(arg0: Trace, arg1: int, arg2: collections.abc.Sequence[str]) -> int: ...
    @staticmethod
    def reduce_sum(arg0: Trace, arg1: int, arg2: collections.abc.Sequence[str]) -> int: ...
    @staticmethod
    def rename(arg0: Trace, arg1: int, arg2: str, arg3: str) -> int: ...
    @staticmethod
    def reorder(arg0: Trace, arg1: int, arg2: collections.abc.Sequence[str]) -> int: ...
    @staticmethod
    def rms_norm(arg0: Trace, arg1: int, arg2: int, arg3: float, arg4: bool) -> int: ...
    @staticmethod
    def rms_norm_of_dim(arg0: Trace, arg1: int, arg2: str, arg3: float) -> int: ...
    @staticmethod
    def rope(arg0: Trace, arg1: int, arg2: int, arg3: dict[str, typing.Any]) -> int: ...
    @staticmethod
    def route(
        arg0: Trace, arg1: int, arg2: int | None, arg3: str, arg4: int, arg5: int, arg6: int, arg7: str, arg8: bool, arg9: float
    ) -> tuple[int, int]: ...
    @staticmethod
    def scatter_rows(arg0: Trace, arg1: int, arg2: int, arg3: str, arg4: int) -> int: ...
    @staticmethod
    def select(arg0: Trace, arg1: int, arg2: int, arg3: int) -> int: ...
    @staticmethod
    def sgd(arg0: Trace, arg1: int, arg2: int, arg3: int, arg4: int, arg5: int, arg6: float, arg7: float) -> tuple[int, int]: ...
    @staticmethod
    def slice(arg0: Trace, arg1: int, arg2: str, arg3: int, arg4: int) -> int: ...
    @staticmethod
    def split(arg0: Trace, arg1: int, arg2: str, arg3: collections.abc.Sequence[tuple[str, int]]) -> int: ...
    @staticmethod
    def sum_of_squares(arg0: Trace, arg1: collections.abc.Sequence[int]) -> int: ...
    @staticmethod
    def to_expert_rows(arg0: Trace, arg1: int, arg2: int, arg3: int, arg4: int | None) -> int: ...
    @staticmethod
    def top_k(arg0: Trace, arg1: int, arg2: str, arg3: str, arg4: int) -> tuple[int, int]: ...
    @staticmethod
    def unary(arg0: Trace, arg1: str, arg2: int) -> int: ...
    @staticmethod
    def within_capacity(arg0: Trace, arg1: int, arg2: int, arg3: int) -> int: ...

def abort_ranks(status: int) -> None:
    """
    Ends the processes of all ranks.
    """

def adapt_batch(batch: dict[str, typing.Any], vocab_size: int, mtp_depths: int = 0) -> dict[str, typing.Any]:
    """
    A user's batch as a model takes it: input_ids, targets, segment_ids, position_ids i32[batch, seq], loss_weights f32[batch, seq], num_targets, weight_sum; for multi-token prediction of depth k = 1.. also mtp_input_ids.k, mtp_targets.k, mtp_loss_weights.k.
    """

def any_rank(mine: bool) -> bool:
    """
    Whether it is true on any rank; all ranks ask together.
    """

def check_agreement(facts: collections.abc.Mapping[str, str], what: str) -> None:
    """
    UserError that names the keys that differ between ranks.
    """

def checkpoint_name(arg0: int) -> str: ...
def checkpoint_problem(folder: str) -> str | None:
    """
    Why a folder is not a whole checkpoint, or None.
    """

def config_for_weights(arg0: str, arg1: str) -> str: ...
def find_model_config(arg0: str, arg1: str) -> tuple[str, str]: ...
def find_rules(arg0: str, arg1: str) -> dict[str, typing.Any]: ...
def gather_texts(mine: str) -> list[str]:
    """
    Everyone's text, by rank.
    """

def gguf_config(path: str) -> str:
    """
    The config.json, as text, that Hugging Face has for the model of a GGUF file.
    """

def gguf_metadata(path: str) -> dict[str, typing.Any]:
    """
    The metadata of a GGUF file: keys as they stand there, arrays as lists.
    """

def huggingface_config_text(arg0: str, arg1: str) -> str: ...
def join_ranks() -> None:
    """
    Starts MPI and meets the other ranks, once. From then on meshes of more than one rank are made of processes.
    """

def kernels_in_use(arg0: TrainPlanSpec) -> dict[str, set[str]]: ...
def leave_ranks() -> None:
    """
    Every rank calls it on its way out.
    """

def list_tensors(path: str, stem: str = "model") -> list[typing.Any]:
    """
    Tensors of a Hugging Face folder or one .safetensors file, sorted by name: name, dtype as stored, shape, bytes, file.
    """

def list_weights(path: str) -> list[typing.Any]:
    """
    Tensors of a Hugging Face folder, a .safetensors or a .gguf file under their Hugging Face names, sorted: name, stored (its encoding in the file), dtype (its own, bf16 where it is quantised, None where we have none for it) and shape.
    """

def load_checkpoint(arg0: Session, arg1: TrainStep, arg2: str, arg3: bool) -> tuple[str, str]: ...
def machine_facts() -> dict[str, typing.Any]: ...
def make_folders(path: str) -> None:
    """
    Makes a folder and its parents; UserError when it cannot.
    """

def measure_peak_flops(arg0: int) -> dict[str, typing.Any]: ...
def measure_read_bandwidth(threads: int, bytes: int = 536870912) -> float: ...
def model_costs(arg0: str, arg1: float) -> dict[str, typing.Any]: ...
def model_names(arg0: str) -> list[str]: ...
def mpi_library() -> tuple[str, str]: ...
def mpirun_rank() -> int:
    """
    The rank of this process among them.
    """

def mpirun_size() -> int:
    """
    Ranks that mpirun started, this process among them; 0 without mpirun.
    """

def newest_checkpoint(folder: str) -> dict[str, typing.Any]:
    """
    The newest whole checkpoint of a run's folder: path and step (None when there is none) and, for each newer one that is not whole, which file is wrong and why.
    """

def ops() -> list[typing.Any]:
    """
    Every op of the registry: name, family (its file in cpp/ops), doc, num_operands (None: checked by its type rule), own_roles (False: every dim is mapped), differentiable, decomposes, elementwise, view, collective, passes_partial_sums, in_place (operands that a result may overwrite).
    """

def override_model_config(arg0: str, arg1: str) -> str: ...
def parameter_tensors(arg0: str) -> list[tuple[str, list[int]]]: ...
def parse_model_config(arg0: str, arg1: str) -> str: ...
def processors_per_rank() -> int: ...
def ranks_barrier() -> None: ...
def ranks_joined() -> bool: ...
def read_tensor(
    path: str, name: str, dtype: str, begin: collections.abc.Sequence[int] | None = None, end: collections.abc.Sequence[int] | None = None
) -> numpy.typing.NDArray[typing.Any]:
    """
    A tensor of list_weights or its slice [begin, end), decoded; bf16 and f16 as the uint16 of their bits.
    """

def read_tensor_bytes(path: str, name: str, stem: str = "model") -> bytes:
    """
    The stored bytes of one tensor, row-major and little-endian.
    """

def read_trainer_state(arg0: str) -> dict[str, typing.Any]: ...
def remat_candidates() -> list[str]: ...
def remat_policies() -> list[str]: ...
def remove_leftovers(arg0: str) -> list[str]: ...
def save_model(arg0: Session, arg1: str, arg2: str, arg3: collections.abc.Sequence[tuple[str, bytes]], arg4: bool) -> None: ...
def stored_dtype(arg0: str) -> str: ...
def stored_parts(path: str, name: str) -> list[str]:
    """
    Names of the tensors in a folder's files behind a name of list_weights: more than one where it is stored quantised.
    """

def sync_folder(path: str) -> None:
    """
    Makes the entries of a folder durable.
    """

def time_op(program: Program, op: str, threads: int, int_below: int) -> dict[str, typing.Any]: ...
def time_openblas(arg0: int, arg1: int, arg2: int, arg3: int) -> typing.Any: ...
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
