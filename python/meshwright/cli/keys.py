"""Every command and every config key, declared once: parsing, `--help`, `docs/config.md` and the hints are made from these tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from meshwright.cli.kinds import BOOLEAN, INTEGER, LENGTH, MODEL, NUMBER, PATH, TEXT, TEXTS, Kind


@dataclass(frozen=True)
class Command:
    name: str
    help: str
    example: str
    positional: str | None = None
    """The key that an argument without `=` gives; None: only a run file may stand there."""
    run_file: bool = True
    """Whether an argument that ends in .json is read as a run file."""


@dataclass(frozen=True)
class Key:
    name: str
    kind: Kind
    default: Any
    help: str
    commands: tuple[str, ...]
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    above: float | None = None
    """Excluded lower bound."""
    below: float | None = None
    """Excluded upper bound."""
    required: bool = False
    optional: bool = False
    """Whether `none` (JSON: null) is a value."""
    changes_result: bool = True
    """Whether a run with another value gives other numbers: these keys must agree when a run is resumed."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Commands whose default differs."""

    def default_for(self, command: str) -> Any:
        return self.defaults.get(command, self.default)

    def range_text(self) -> str:
        """`one of a, b` · `0 to 1` · `at least 1` · `` where anything goes."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        low = f"above {self.above}" if self.above is not None else f"at least {self.low}" if self.low is not None else ""
        high = f"below {self.below}" if self.below is not None else f"at most {self.high}" if self.high is not None else ""
        if self.low is not None and self.high is not None:
            return f"{self.low} to {self.high}"
        return " and ".join(part for part in (low, high) if part)

    def default_text(self, command: str) -> str:
        """The default as it would be typed."""
        value = self.default_for(command)
        if self.required:
            return "required"
        if value is None:
            return "none"
        return value if isinstance(value, str) else json.dumps(value)


COMMANDS = {
    command.name: command
    for command in (
        Command("quickstart", "train a small model on this Python's own library and write text with it", "meshwright quickstart"),
        Command(
            "prepare",
            "make a data folder of token shards from text, JSONL and parquet files",
            "meshwright prepare book.txt output=data/ tokenizer=train vocab=4096 validation=0.05",
            positional="inputs",
            run_file=False,
        ),
        Command(
            "train",
            "train a model: model=NAME from random weights, model=FOLDER from its weights",
            "meshwright train model=mini data=data/ seq=256 batch=8 steps=1000 output=runs/a",
        ),
        Command(
            "generate",
            "write text with a model",
            'meshwright generate runs/a prompt="Once" max_new_tokens=64 temperature=0.8',
            positional="model",
        ),
        Command("evaluate", "loss of a model on a data folder", "meshwright evaluate runs/a data=data/ seq=256", positional="model"),
        Command(
            "plan",
            "memory, FLOPs, collectives and, on named hardware, the time of a training step, without running it",
            "meshwright plan model=llama3-8b mesh.fsdp=8 seq=8192 batch=8 remat=full hardware=h100",
            positional="model",
        ),
        Command("models", "the models whose configurations come with Meshwright", "meshwright models llama", positional="filter"),
        Command(
            "inspect",
            "what a checkpoint folder, a run folder or a .safetensors file holds",
            "meshwright inspect runs/a",
            positional="path",
            run_file=False,
        ),
        Command(
            "export",
            "write a model, a run's newest checkpoint or a .gguf file as a Hugging Face folder",
            "meshwright export runs/a output=my-model dtype=bfloat16",
            positional="model",
        ),
        Command("bench", "time one operation and name its kernel", "meshwright bench op=dot m=2048 n=768 k=768 threads=2", positional="op"),
        Command("doctor", "what this machine offers: instruction sets, kernels, measured peaks, warnings", "meshwright doctor"),
    )
}

_TRAIN, _PLAN = ("train",), ("train", "plan")
_TABLES = ("evaluate", "plan", "models", "inspect", "bench", "doctor")

KEYS = (
    # What it works on
    Key("inputs", TEXTS, None, "files and folders to read: .txt, .md, .py and other text, .jsonl, .parquet", ("prepare",), required=True),
    Key(
        "model",
        MODEL,
        None,
        "a name from `meshwright models` (random weights), a checkpoint folder (its weights) or a JSON file",
        ("train", "generate", "evaluate", "plan", "export"),
        required=True,
    ),
    Key("data", PATH, None, "data folder that `meshwright prepare` made", ("train", "evaluate"), required=True),
    Key("split", TEXT, "validation", "part of the data folder", ("evaluate",), choices=("train", "validation")),
    Key("path", PATH, None, "checkpoint folder, run folder or .safetensors file", ("inspect",), required=True),
    Key("filter", TEXT, None, "part of a model's name", ("models",), optional=True),
    Key(
        "output",
        PATH,
        None,
        "folder to write; a run that stands there is resumed",
        ("quickstart", "prepare", "train", "export"),
        optional=True,
        changes_result=False,
        defaults={"quickstart": "runs/quickstart", "prepare": "data", "export": "exported"},
    ),
    # Preparing data
    Key(
        "tokenizer", TEXT, "train", "`train` a byte-level BPE tokenizer on the input, or the folder or file of the one to use", ("prepare",)
    ),
    Key("vocab", INTEGER, 4096, "vocabulary size of a trained tokenizer", ("prepare",), low=257, high=1 << 24),
    Key("validation", NUMBER, 0.05, "share of the documents that is held back as the validation split", ("prepare",), low=0, below=1),
    Key("field", TEXT, "text", "field of JSONL objects or parquet column that holds the text", ("prepare",)),
    # Size of the run
    Key(
        "steps",
        INTEGER,
        1000,
        "optimizer steps",
        ("quickstart", "train"),
        low=1,
        optional=True,
        defaults={"quickstart": None},
    ),
    Key("minutes", NUMBER, 5.0, "training time from which steps is chosen (300 to 3,000) when it is none", ("quickstart",), above=0),
    Key("seq", INTEGER, 256, "tokens per sequence", ("train", "evaluate", "plan", "models", "bench"), low=2, defaults={"models": 4096}),
    Key("batch", INTEGER, 8, "sequences per optimizer step, over all ranks", ("train", "evaluate", "plan", "bench"), low=1),
    Key("batches", INTEGER, None, "batches to evaluate; none: the whole split", ("evaluate",), low=1, optional=True),
    Key("microbatches", INTEGER, None, "parts into which a batch is cut; none: gradient_accumulation", _PLAN, low=1, optional=True),
    Key("gradient_accumulation", INTEGER, None, "microbatches under its usual name; none: 1", _PLAN, low=1, optional=True),
    # Optimizer
    Key("optimizer", TEXT, "adamw", "update rule", _PLAN, choices=("adamw", "sgd")),
    Key("lr", NUMBER, 3e-4, "learning rate at the top of the schedule", ("train",), low=0),
    Key("beta1", NUMBER, 0.9, "AdamW: decay of the first moment", _TRAIN, low=0, below=1),
    Key("beta2", NUMBER, 0.95, "AdamW: decay of the second moment", _TRAIN, low=0, below=1),
    Key("eps", NUMBER, 1e-8, "AdamW: added to the root of the second moment", _TRAIN, low=0),
    Key("momentum", NUMBER, 0.0, "SGD: momentum", _TRAIN, low=0, below=1),
    Key("weight_decay", NUMBER, 0.1, "decay of tensors with two or more dims", _TRAIN, low=0),
    Key("decay_embeddings", BOOLEAN, False, "decay embeddings too", _TRAIN),
    Key("clip", NUMBER, 1.0, "largest global norm of the gradient; none: no clipping", _TRAIN, above=0, optional=True),
    Key("schedule", TEXT, "cosine", "shape of the learning rate", _TRAIN, choices=("constant", "cosine", "wsd", "linear")),
    Key("warmup", LENGTH, 0.1, "warm-up: steps, or a share of the run", _TRAIN, low=0),
    Key("decay", LENGTH, 0.1, "wsd: steps or share of the decay at the end", _TRAIN, low=0),
    Key("decay_style", TEXT, "linear", "wsd: shape of the decay", _TRAIN, choices=("linear", "cosine")),
    Key("final", NUMBER, 0.1, "learning rate at the end as a share of lr", _TRAIN, low=0, high=1),
    # Terms of the loss beside the loss per token
    Key("losses.mtp", NUMBER, None, "multi-token prediction; none: 0.3 where the model has modules for it", _PLAN, low=0, optional=True),
    Key(
        "losses.load_balance",
        NUMBER,
        None,
        "load balance of experts; none: the model's own weight where its configuration asks for router logits",
        _PLAN,
        low=0,
        optional=True,
    ),
    Key("losses.sequence_balance", NUMBER, 0.0, "load balance of experts within each sequence", _PLAN, low=0),
    Key("losses.router_z", NUMBER, 0.0, "squared log-sum-exp of the router's logits", _PLAN, low=0),
    Key(
        "losses.selection_bias_rate", NUMBER, 0.0, "step of the router's selection bias towards an even load, without a loss", _PLAN, low=0
    ),
    Key("losses.expert_load", BOOLEAN, False, "record the load of every layer's experts", _PLAN),
    # Computation
    Key(
        "dtype",
        TEXT,
        "float32",
        "compute dtype; masters and accumulators are float32",
        ("train", "generate", "evaluate", "plan", "bench"),
        choices=("float32", "bfloat16"),
    ),
    Key(
        "reduce_dtype",
        TEXT,
        "float32",
        "what gradients are sent as where ranks add them up; bfloat16 halves the bytes; sums are formed in float32 all the same",
        _PLAN,
        choices=("float32", "bfloat16"),
    ),
    Key("dtype", TEXT, None, "of the files; none: the model's own", ("export",), choices=("float32", "bfloat16"), optional=True),
    Key("keep_quantized", BOOLEAN, False, "write weights that were published in FP8 or MXFP4 as they were, byte by byte", ("export",)),
    Key(
        "seed", INTEGER, 0, "seed of weights, data order and sampling", ("quickstart", "prepare", "train", "generate"), low=0, below=1 << 63
    ),
    Key(
        "remat",
        TEXT,
        "none",
        "what backward recomputes: none, minimal, full, auto, ... (docs/memory.md), or custom:NAME,NAME=offload",
        _PLAN,
        changes_result=False,
    ),
    Key(
        "rules",
        PATH,
        None,
        "sharding rules: a layout of configs/rules (ddp, zero1, fsdp, tp_sp, ...) or a JSON file; none: rows for every axis",
        _PLAN,
        optional=True,
        changes_result=False,
    ),
    Key(
        "mesh",
        TEXT,
        None,
        "auto: the mesh with the fastest step that fits, found by planning; none: mesh.data, mesh.fsdp, ...",
        _PLAN,
        choices=("auto",),
        optional=True,
        changes_result=False,
    ),
    Key("mesh.data", INTEGER, 1, "ranks that each hold the whole model (DDP)", _PLAN, low=1, changes_result=False),
    Key("mesh.stage", INTEGER, 1, "stages to which the layers are dealt out (pipeline parallelism)", _PLAN, low=1, changes_result=False),
    Key(
        "mesh.fsdp",
        INTEGER,
        1,
        "ranks over which weights, gradients and optimizer state are split (ZeRO-3)",
        _PLAN,
        low=1,
        changes_result=False,
    ),
    Key(
        "mesh.expert",
        INTEGER,
        1,
        "ranks over which the experts of a mixture are split; one more `mesh.data` for everything else",
        _PLAN,
        low=1,
        changes_result=False,
    ),
    Key(
        "mesh.context",
        INTEGER,
        1,
        "ranks over which each sequence is split; attention gathers its keys and values",
        _PLAN,
        low=1,
        changes_result=False,
    ),
    Key("mesh.tensor", INTEGER, 1, "ranks over which each layer's matrices are split", _PLAN, low=1, changes_result=False),
    Key(
        "context_attention",
        TEXT,
        None,
        "with mesh.context: keys and values gathered before attention, or one rank's after the other, as a ring; none: as the rules say",
        _PLAN,
        choices=("gather", "ring"),
        optional=True,
        changes_result=False,
    ),
    Key(
        "pipeline",
        TEXT,
        "1f1b",
        "with mesh.stage: order in which stages work on the microbatches",
        _PLAN,
        choices=("gpipe", "1f1b", "interleaved", "zero_bubble"),
        changes_result=False,
    ),
    Key("interleave", INTEGER, 1, "pipeline=interleaved or gpipe: runs of layers of each stage", _PLAN, low=1, changes_result=False),
    Key(
        "expert_rows_factor",
        NUMBER,
        1.5,
        "with mesh.expert, room for the rows of experts of a rank, as a multiple of their mean; a step that needs more is run again",
        _PLAN,
        low=1,
        changes_result=False,
    ),
    # The cluster that a plan is for
    Key(
        "hardware",
        PATH,
        None,
        "chip that every rank is: a name from configs/hardware or a JSON file; none: memory and traffic alone, with the CPU's kernels",
        ("plan",),
        optional=True,
    ),
    Key("chips", INTEGER, None, "how many chips there are; none: as many as the mesh has ranks", ("plan",), low=1, optional=True),
    Key("sweep", BOOLEAN, False, "compare all meshes of `chips` ranks; axes that are given keep their sizes", ("plan",)),
    Key(
        "overlap",
        BOOLEAN,
        None,
        "transfers run beside compute; none: in plans for named hardware but cpu",
        _PLAN,
        optional=True,
        changes_result=False,
    ),
    Key(
        "overlap_bytes",
        INTEGER,
        None,
        "with overlap, the most bytes that they hold at once; none: what the layer with the most needs",
        _PLAN,
        low=1,
        optional=True,
        changes_result=False,
    ),
    Key(
        "dot_dtype",
        TEXT,
        None,
        "dtype at whose peak the matrix products of bfloat16 weights run; none: their own",
        ("plan",),
        choices=("float8",),
        optional=True,
    ),
    Key("expert_imbalance", NUMBER, 1.0, "rows of experts of the busiest rank, over the mean", ("plan",), low=1),
    Key(
        "ranks",
        INTEGER,
        1,
        "processes to start with mpirun, one per rank of the mesh; 1: the ranks are threads of one process",
        _TRAIN,
        low=1,
        changes_result=False,
    ),
    Key("threads", INTEGER, None, "CPU threads; none: all", ("bench", "doctor"), low=1, optional=True, changes_result=False),
    # While it runs
    Key("log_every", INTEGER, 10, "steps between rows of metrics", _TRAIN, low=1, changes_result=False),
    Key("save_every", INTEGER, 500, "steps between checkpoints", _TRAIN, low=1, changes_result=False),
    Key("keep", INTEGER, 3, "newest checkpoints that are kept", _TRAIN, low=1, changes_result=False),
    Key(
        "profile",
        INTEGER,
        None,
        "steps of which it tells where their time went, from the second on: a table, and files in output (docs/profiling.md)",
        _TRAIN,
        low=1,
        optional=True,
        changes_result=False,
    ),
    Key(
        "eval_every",
        INTEGER,
        200,
        "steps between evaluations on the validation split; none: never",
        _TRAIN,
        low=1,
        optional=True,
        changes_result=False,
    ),
    Key(
        "reset_optimizer",
        BOOLEAN,
        False,
        "start with fresh optimizer state where the weights were changed since the save",
        _TRAIN,
        changes_result=False,
    ),
    # Text
    Key("prompt", TEXTS, None, 'text to continue; several as a JSON list, ["a", "b"]', ("generate",), required=True),
    Key(
        "chat", BOOLEAN, False, "the prompt is a user's message: render it with the model's chat template, print the answer", ("generate",)
    ),
    Key("max_new_tokens", INTEGER, 64, "tokens to write at most", ("generate",), low=1),
    Key("samples", INTEGER, 1, "continuations of each prompt", ("generate",), low=1),
    Key("temperature", NUMBER, 0.0, "0 takes the likeliest token, 1 samples from the model's own distribution", ("generate",), low=0),
    Key("top_k", INTEGER, None, "sample from the k likeliest tokens", ("generate",), low=1, optional=True),
    Key(
        "top_p", NUMBER, None, "sample from the likeliest tokens that reach this probability", ("generate",), above=0, high=1, optional=True
    ),
    Key(
        "min_p",
        NUMBER,
        None,
        "drop tokens below this share of the likeliest one's probability",
        ("generate",),
        low=0,
        high=1,
        optional=True,
    ),
    Key("stop", TEXTS, None, "texts that end a continuation", ("generate",), optional=True),
    Key(
        "stream",
        BOOLEAN,
        None,
        "print text as it is made; none: when standard output is a terminal",
        ("generate",),
        optional=True,
        changes_result=False,
    ),
    # Measuring
    Key(
        "picture",
        PATH,
        None,
        "with hardware, PNG file to draw: memory over the time of a step, compute, transfers, bubble",
        ("plan",),
        optional=True,
    ),
    Key("explain", TEXT, None, "print the program after this pass, with its collectives", ("plan",), optional=True),
    Key("op", TEXT, "dot", "operation to time: dot, attention, cross_entropy, rms_norm, adamw, ...", ("bench",)),
    Key("m", INTEGER, None, "rows (tokens); none: the operation's own", ("bench",), low=1, optional=True),
    Key("n", INTEGER, None, "columns (vocabulary, elements); none: the operation's own", ("bench",), low=1, optional=True),
    Key("k", INTEGER, None, "length of the contraction (embedding); none: the operation's own", ("bench",), low=1, optional=True),
    Key("heads", INTEGER, 12, "attention, rope: query heads", ("bench",), low=1),
    Key("kv_heads", INTEGER, 4, "attention: key and value heads", ("bench",), low=1),
    Key("head_dim", INTEGER, 64, "attention, rope: size of a head", ("bench",), low=1),
    Key("fresh", BOOLEAN, False, "measure the machine's peaks again", ("doctor",)),
    Key("json", BOOLEAN, False, "print JSON instead of a table", _TABLES, changes_result=False),
)

OPEN_GROUPS = {"model": ("train",)}
"""Groups whose fields another table checks (a model's own configuration), and the commands that take them."""


def keys_of(command: str) -> dict[str, Key]:
    return {key.name: key for key in KEYS if command in key.commands}
