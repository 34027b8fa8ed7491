"""From nothing to a trained model that writes text, on text that every machine has: this Python's own library.

corpus -> prepare -> baselines -> number of steps -> train -> evaluate -> completions -> picture -> what to try next
"""

from __future__ import annotations

import ast
import hashlib
import math
import os
import shlex
import statistics
import sysconfig
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meshwright._core import UserError, machine_facts
from meshwright.diagnostics import BF16_PRODUCTS
from meshwright.run_log import History, plot_run, read_settings, remember_settings

EXCLUDED_FOLDERS = frozenset({"site-packages", "dist-packages", "test", "tests", "idle_test"})
SMALLEST_CORPUS = 4_000_000
MODEL, VOCAB = "mini", 4096
# Short rows begin at twice as many places of the text, so the model learns what to do with a prompt that has nothing before it.
SEQ, BATCH = 128, 16
LEARNING_RATE, WARMUP, FINAL = 2e-3, 0.05, 0.02
TIMED_STEPS, FEWEST_STEPS, MOST_STEPS = 20, 300, 3000
PROMPTS = ("import", "class Base", "def __init__(self")
TEMPERATURE = 0.7


@dataclass(frozen=True)
class Corpus:
    """Python source files below `root`, sorted by their path; `held_back` is never trained on."""

    root: Path
    train: tuple[Path, ...]
    held_back: tuple[Path, ...]

    @staticmethod
    def bytes_of(files: Iterable[Path]) -> int:
        return sum(file.stat().st_size for file in files)


def is_held_back(relative_path: str) -> bool:
    """Whether a file belongs to the validation split: one in twenty, decided by its path alone (with `/` between folders)."""
    return int.from_bytes(hashlib.sha256(relative_path.encode()).digest(), "big") % 20 == 0


def find_corpus(root: str | os.PathLike[str] | None = None, smallest: int = SMALLEST_CORPUS) -> Corpus:
    """The corpus of this machine; fewer than `smallest` bytes of it are a UserError that says where it looked."""
    base = Path(root) if root is not None else Path(sysconfig.get_paths()["stdlib"])
    names = []
    for folder, folders, files in os.walk(base):
        folders[:] = [name for name in folders if name not in EXCLUDED_FOLDERS]
        names += [
            Path(folder, name).relative_to(base).as_posix() for name in files if name.endswith(".py") and Path(folder, name).is_file()
        ]
    names.sort()
    corpus = Corpus(
        base, tuple(base / name for name in names if not is_held_back(name)), tuple(base / name for name in names if is_held_back(name))
    )
    size = Corpus.bytes_of(corpus.train) + Corpus.bytes_of(corpus.held_back)
    if size < smallest:
        raise UserError(
            f"expected at least {smallest:,} bytes of .py files, found {size:,} in {len(names)} files under {os.fspath(base)!r} "
            f"(without folders named {', '.join(sorted(EXCLUDED_FOLDERS))}); "
            "use `meshwright prepare` and `meshwright train` on text of your own"
        )
    return corpus


def choose_steps(seconds_per_step: float, minutes: float) -> int:
    """As many steps as fit into `minutes`, between 300 and 3,000."""
    return max(FEWEST_STEPS, min(MOST_STEPS, int(minutes * 60 / max(seconds_per_step, 1e-9))))


def valid_python_lines(text: str) -> int:
    """How many lines of code (not blank, not only a comment) stand in the longest beginning of `text` that `ast.parse` accepts."""
    lines = text.split("\n")
    for count in range(len(lines), 0, -1):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ast.parse("\n".join(lines[:count]))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        return sum(1 for line in lines[:count] if line.strip() and not line.lstrip().startswith("#"))
    return 0


def bits_per_byte(nats_per_token: float, tokens: int, text_bytes: int) -> float:
    """The loss per byte of the text that `tokens` predicted tokens stand for."""
    return nats_per_token * tokens / text_bytes / math.log(2)


def quickstart(
    output: str | os.PathLike[str] = "runs/quickstart",
    *,
    steps: int | None = None,
    minutes: float = 5.0,
    seed: int = 0,
    show: Callable[[str], None] = print,
) -> None:
    """Runs it all and leaves data, checkpoints, metrics.jsonl and loss.png in `output`; the same `steps` and `seed` give the same bits."""
    import meshwright as mw

    folder = Path(output)
    corpus = find_corpus()
    train_bytes, held_back_bytes = Corpus.bytes_of(corpus.train), Corpus.bytes_of(corpus.held_back)
    show(
        f"corpus: {len(corpus.train) + len(corpus.held_back)} Python files under {corpus.root}, {train_bytes / 1e6:.1f} MB "
        f"to train on, {len(corpus.held_back)} files with {held_back_bytes / 1e6:.1f} MB held back"
    )
    data_folder = folder / "data"
    mw.prepare(corpus.train, data_folder, tokenizer="train", vocab=VOCAB, validation=corpus.held_back, seed=seed)

    baselines, tokens = _baselines(data_folder, seed)
    for name, loss in baselines.items():
        show(f"{name}: {loss:.3f} nats per token, {bits_per_byte(loss, tokens, held_back_bytes):.3f} bits per byte")

    settings = read_settings(folder)
    dtype = str(settings.get("dtype", compute_dtype()))
    stored = settings.get("steps")
    if steps is None and isinstance(stored, int):
        steps = stored
    if steps is None:
        seconds = _seconds_per_step(data_folder, seed, dtype)
        steps = choose_steps(seconds, minutes)
        show(f"steps: {steps:,}, for about {steps * seconds / 60:.1f} minutes at {seconds:.3f} s per step; steps={steps} repeats this run")
    remember_settings(
        folder,
        {"model": MODEL, "seq": SEQ, "batch": BATCH, "vocab": VOCAB, "lr": LEARNING_RATE, "dtype": dtype, "steps": steps, "seed": seed},
    )

    data, model, trainer = make_trainer(data_folder, seed, dtype, output=folder)
    show(f"model: {MODEL}, {model.num_parameters:,} parameters, from random weights, computed in {dtype}")
    trainer.fit(data, steps=steps)
    loss = trainer.evaluate(mw.TokenDataset(data_folder, split="validation", seq=SEQ, batch=BATCH, seed=seed)).loss
    show(f"{'':<10} {'nats per token':>14} {'bits per byte':>14}   on the held-back files")
    for name, value in {MODEL: loss, **baselines}.items():
        show(f"{name:<10} {value:>14.3f} {bits_per_byte(value, tokens, held_back_bytes):>14.3f}")

    texts = mw.Generator(model).generate(list(PROMPTS), max_new_tokens=64, do_sample=True, temperature=TEMPERATURE, seed=seed)
    for prompt, text in zip(PROMPTS, texts, strict=True):
        show(f"--- {prompt}\n{prompt}{text}")

    history = History(folder, resume_step=steps)
    for name, value in baselines.items():
        history.baseline(name, value)
    history.close()
    show(f"---\npicture: {plot_run(folder)}")
    show(next_commands(folder))


def next_commands(folder: Path) -> str:
    """Command lines that work as they stand."""
    run, data = shlex.quote(str(folder)), shlex.quote(str(folder / "data"))
    return "\n".join(
        [
            "try next:",
            f'  meshwright generate {run} prompt="class Base" temperature=0.7 max_new_tokens=200',
            f"  meshwright evaluate {run} data={data} seq={SEQ}",
            f"  meshwright inspect {run}",
            f"  meshwright train model={MODEL} data={data} seq={SEQ} batch={BATCH} steps=1000 output=runs/a",
        ]
    )


def compute_dtype() -> str:
    """bfloat16 where this machine multiplies it in hardware, which then takes about two thirds of the time."""
    return "bfloat16" if machine_facts()["isa"] in BF16_PRODUCTS else "float32"


def make_trainer(data_folder: Path, seed: int, dtype: str, output: Path | None) -> tuple[Any, Any, Any]:
    """The data, the model and the Trainer of the quickstart; saves and evaluates where there is an `output`."""
    import meshwright as mw

    data = mw.TokenDataset(data_folder, split="train", seq=SEQ, batch=BATCH, seed=seed)
    validation = mw.TokenDataset(data_folder, split="validation", seq=SEQ, batch=BATCH, seed=seed)
    model = mw.Model(MODEL, vocab_size=data.vocab_size, seed=seed)
    model.tokenizer = data.tokenizer
    trainer = mw.Trainer(
        model,
        optimizer=mw.AdamW(lr=LEARNING_RATE),
        schedule=mw.WarmupCosine(warmup=WARMUP, final=FINAL),
        clip=1.0,
        dtype=dtype,
        seed=seed,
        output=output,
        eval_data=validation if output is not None else None,
        eval_every=200,
    )
    return data, model, trainer


def _seconds_per_step(data_folder: Path, seed: int, dtype: str) -> float:
    """The median of 20 steps of a model that is thrown away, so that the run itself always starts from the same weights."""
    data, _, trainer = make_trainer(data_folder, seed, dtype, output=None)
    seconds = []
    batches = iter(data)
    for _ in range(TIMED_STEPS):
        batch = next(batches)
        start = time.perf_counter()
        trainer.step(batch)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _baselines(data_folder: Path, seed: int) -> tuple[dict[str, float], int]:
    """Losses of the count-based models on the held-back files, and the number of tokens that they predict there."""
    import meshwright as mw

    def documents(split: str) -> tuple[Any, Any]:
        tokens, starts = mw.TokenDataset(data_folder, split=split, seq=SEQ, batch=BATCH, seed=seed).documents()
        return tokens, starts

    (train, train_starts), (held_back, held_back_starts) = documents("train"), documents("validation")
    losses = {
        "unigram": mw.Unigram.fit(train, VOCAB).nats_per_token(held_back, held_back_starts),
        "bigram": mw.Bigram.fit(train, VOCAB, train_starts).nats_per_token(held_back, held_back_starts),
        "trigram": mw.Trigram.fit(train, VOCAB, train_starts).nats_per_token(held_back, held_back_starts),
    }
    return losses, len(held_back) - len(held_back_starts)
