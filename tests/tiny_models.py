"""Models and data that train in milliseconds, for tests of what stands around the numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import meshwright as mw
import numpy as np
from meshwright._core import SplitWriter

VOCAB = 128
CONFIG: dict[str, Any] = dict(
    family="llama",
    embedding_dim=32,
    mlp_dim=64,
    num_layers=2,
    num_query_heads=4,
    num_kv_heads=2,
    head_dim=8,
    vocab_size=VOCAB,
    max_position_embeddings=64,
)


def make_model(seed: int = 3, dtype: str = "float32", **changes: Any) -> mw.Model:
    return mw.Model({**CONFIG, **changes}, seed=seed, dtype=dtype)


def make_batch(rows: int = 4, seq: int = 16, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"input_ids": rng.integers(0, VOCAB, (rows, seq)), "loss_weights": rng.random((rows, seq)).astype(np.float32)}


def make_batches(count: int = 5, rows: int = 4, seq: int = 16) -> list[dict[str, np.ndarray]]:
    return [make_batch(rows, seq, seed) for seed in range(count)]


def make_trainer(model: mw.Model | None = None, **arguments: Any) -> mw.Trainer:
    arguments = {"clip": 1.0, "show": False, "log_every": 1, "optimizer": mw.AdamW(lr=1e-2), **arguments}
    return mw.Trainer(make_model() if model is None else model, **arguments)


def write_data(folder: Path, tokens: int = 4000, vocab: int = VOCAB) -> Path:
    """A data folder with a train and a validation split of random documents, and no tokenizer."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(5)
    splits = {}
    for name, size in (("train", tokens), ("validation", tokens // 8)):
        writer = SplitWriter(str(folder), name, vocab, 1000)
        ends = sorted({*rng.integers(1, size, 12).tolist(), size})
        for begin, end in zip([0, *ends[:-1]], ends, strict=True):
            writer.append(rng.integers(0, vocab, end - begin).tolist())
            writer.end_document()
        splits[name] = {"num_tokens": size, "num_documents": len(ends), "text_bytes": 4 * size, "shards": writer.finish()}
    content = {"format": "meshwright-tokens", "version": 1, "vocab_size": vocab, "eos_id": None, "tokenizer": None, "splits": splits}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def weights_of(model: mw.Model) -> dict[str, np.ndarray]:
    """Whole tensors by name: the FP32 masters where there are some."""
    session = model._session
    return {name: session.read_tensor(name, "float32", True) for name in model.state_dict()}


def states_of(trainer: mw.Trainer) -> dict[str, np.ndarray]:
    return {name: trainer._step.read_state(name) for name in trainer._step.state_names()}


def assert_same(a: dict[str, np.ndarray], b: dict[str, np.ndarray], tolerance: float = 0.0) -> None:
    assert a.keys() == b.keys()
    for name, values in a.items():
        if tolerance == 0.0:
            assert np.array_equal(values, b[name]), name
        else:
            assert np.abs(values - b[name]).max() <= tolerance * max(np.abs(b[name]).max(), 1e-8), name


def numbers_of(output: Path) -> list[tuple[Any, ...]]:
    """What metrics.jsonl says of each step, without times."""
    history = mw.run_log.read_history(output)
    rows = [("train", *(row[key] for key in ("step", "loss", "grad_norm", "lr", "tokens"))) for row in history.train]
    return rows + [("validation", row["step"], row["loss"]) for row in history.validation]
