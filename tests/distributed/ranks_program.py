"""What the tests of processes run on every rank: `mpirun -n N python ranks_program.py CASE OUTPUT`. Also imported, for ranks that are
threads."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import meshwright as mw
import numpy as np

VOCABULARY = 128
DENSE = dict(
    family="llama",
    embedding_dim=64,
    mlp_dim=96,
    num_layers=2,
    num_query_heads=8,
    num_kv_heads=2,
    head_dim=8,
    vocab_size=VOCABULARY,
    max_position_embeddings=64,
)
EXPERTS = dict(
    family="mixtral",
    embedding_dim=64,
    mlp_dim=48,
    moe_mlp_dim=48,
    num_layers=2,
    num_query_heads=4,
    num_kv_heads=2,
    head_dim=16,
    vocab_size=VOCABULARY,
    max_position_embeddings=64,
    moe=dict(num_experts=8, experts_per_token=2, normalize_topk_weights=True),
)
# Ranks -> what is compared on so many of them.
CASES: dict[int, list[dict[str, Any]]] = {
    2: [
        dict(mesh={"data": 2}),
        dict(mesh={"data": 2}, rules="zero1", dtype="bfloat16"),
        dict(mesh={"fsdp": 2}, microbatches=2),
        dict(mesh={"tensor": 2}, dtype="bfloat16"),
        dict(mesh={"expert": 2}, model="experts"),
    ],
    4: [
        dict(mesh={"data": 2, "fsdp": 2}, dtype="bfloat16"),
        dict(mesh={"data": 4}, rules="zero3", remat="full"),
        dict(mesh={"fsdp": 2, "tensor": 2}, microbatches=2),
        dict(mesh={"fsdp": 2, "expert": 2}, model="experts", expert_rows_factor=1.0),  # too little room: steps are run again
    ],
    8: [
        dict(mesh={"data": 2, "fsdp": 2, "tensor": 2}),
        dict(mesh={"fsdp": 8}),
        dict(mesh={"fsdp": 2, "expert": 2, "tensor": 2}, model="experts", dtype="bfloat16"),
    ],
}


def batch(step: int, rows: int = 8, seq: int = 16) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(step)
    return {"input_ids": rng.integers(0, VOCABULARY, (rows, seq)), "loss_weights": rng.random((rows, seq)).astype(np.float32)}


def digest(arrays: dict[str, np.ndarray]) -> str:
    sha = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        sha.update(name.encode())
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()


def train(case: dict[str, Any]) -> dict[str, Any]:
    """Loss and gradients, then three steps; every number of it as bits."""
    settings = dict(case)
    model = mw.Model(EXPERTS if settings.pop("model", "dense") == "experts" else DENSE, seed=3)
    trainer = mw.Trainer(model, mw.AdamW(lr=1e-2, eps=1e-3), clip=1.0, show=False, **settings)
    loss, gradients = model.loss_and_gradients(batch(100))
    steps = [trainer.step(batch(step)) for step in range(3)]
    return {
        "loss": loss.hex(),
        "gradients": digest(gradients),
        "steps": [[m.loss.hex(), m.grad_norm.hex(), m.peak_bytes] for m in steps],
        "terms": {name: value for name, value in steps[-1].terms.items() if name != "step_seconds"},
        "load": {name: list(value) for name, value in steps[-1].expert_load.items()},
        "weights": digest({name: weight.gather() for name, weight in model.state_dict().items()}),
        "state": digest({name: trainer._step.read_state(name) for name in trainer._step.state_names()}),
        "generated": mw.Generator(model).generate([[1, 2, 3], [4, 5]], max_new_tokens=5),
    }


def equality(output: Path) -> None:
    size = int(os.environ["OMPI_COMM_WORLD_SIZE"])
    results = [train(case) for case in CASES[size]]
    if os.environ["OMPI_COMM_WORLD_RANK"] == "0":
        output.write_text(json.dumps(results))


def is_second() -> bool:
    return os.environ["OMPI_COMM_WORLD_RANK"] == "1"


def trainer(output: Path | None = None, **settings: Any) -> mw.Trainer:
    lr = settings.pop("lr", 0.1)
    return mw.Trainer(mw.Model(DENSE, seed=settings.pop("seed", 0)), mw.SGD(lr=lr), mesh={"fsdp": 2}, output=output, show=False, **settings)


def other_learning_rate(output: Path) -> None:
    trainer(lr=0.2 if is_second() else 0.1)


def other_weights(output: Path) -> None:
    trainer(seed=int(is_second()))


def other_batch(output: Path) -> None:
    trainer().step(batch(int(is_second())))


def other_program(output: Path) -> None:
    run = trainer()
    run.model.forward(batch(0)["input_ids"], capture=["layers.0.attention.key"] if is_second() else [])


def other_length(output: Path) -> None:
    trainer().fit([batch(0)], steps=3 + int(is_second()))


def wrong_mesh(output: Path) -> None:
    mw.Trainer(mw.Model(DENSE), mw.SGD(lr=0.1), mesh={"data": 4}, show=False)


def own_folder(output: Path) -> Path:
    """A path that means another folder on every rank, as on hosts that share no file system."""
    own = output / os.environ["OMPI_COMM_WORLD_RANK"]
    own.mkdir(parents=True)
    os.chdir(own)
    return Path("/proc/self/cwd/run")


def own_folders(output: Path) -> None:
    trainer(own_folder(output)).fit([batch(0)], steps=1)


def own_checkpoints(output: Path) -> None:
    folder = own_folder(output)
    run = trainer()
    run.save(output / "saved")
    if not is_second():
        folder.resolve().mkdir()
        (output / "saved").rename(folder.resolve() / "step-00000000")
    run._ranks.barrier()
    trainer(folder)


def save_pretrained(output: Path) -> None:
    trainer(dtype="bfloat16").model.save_pretrained(output)


def one_fails(output: Path) -> None:
    run = trainer()
    if is_second():
        raise RuntimeError("the second rank had enough")
    run.step(batch(0))  # waits for it


class Slowly:
    """Batches that never end, and a file with the process of every rank."""

    def __init__(self, output: Path) -> None:
        (output / f"rank-{os.environ['OMPI_COMM_WORLD_RANK']}").write_text(str(os.getpid()))

    def __iter__(self) -> Any:
        for step in range(10_000):
            time.sleep(0.02)
            yield batch(step)


def endless(output: Path) -> None:
    trainer(output / "run", save_every=2).fit(Slowly(output), steps=10_000)


def resumed(output: Path) -> None:
    run = trainer(output / "run", save_every=2)
    assert run.steps_done > 0
    run.fit([batch(step) for step in range(run.steps_done + 2)], steps=run.steps_done + 2)


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]))
