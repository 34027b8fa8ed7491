"""What the tests of processes run on every rank: `mpirun -n N python ranks_program.py CASE OUTPUT`. Also imported, for ranks that are
threads."""

from __future__ import annotations

import hashlib
import json
import os
import sys
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
SMALL = dict(embedding_dim=64, mlp_dim=48, num_layers=2, num_query_heads=4, vocab_size=VOCABULARY, max_position_embeddings=64)
MODELS: dict[str, dict[str, Any]] = {
    "dense": dict(model=DENSE),
    "experts": dict(model=EXPERTS),
    "mla": dict(
        model="deepseek2-16b",
        **SMALL,
        num_kv_heads=4,
        head_dim=12,
        moe_mlp_dim=48,
        mla=dict(kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=8),
        moe=dict(num_experts=8, experts_per_token=2, num_shared_experts=1, shared_expert_mlp_dim=48, first_dense_layers=1),
    ),
    "windowed": dict(model="gemma2-2b", **SMALL, num_kv_heads=2, head_dim=16, attention_pattern=dict(sliding_window=5)),
}
# Ranks -> what is compared on so many of them.
CASES: dict[int, list[dict[str, Any]]] = {
    2: [
        dict(mesh={"data": 2}),
        dict(mesh={"data": 2}, rules="zero1", dtype="bfloat16", overlap=True),
        dict(mesh={"fsdp": 2}, microbatches=2, reduce_dtype="bfloat16"),
        dict(mesh={"tensor": 2}, dtype="bfloat16"),
        dict(mesh={"tensor": 2}, model="windowed"),
        dict(mesh={"expert": 2}, model="experts"),
        dict(mesh={"fsdp": 2}, model="mla", overlap=True),
        dict(mesh={"context": 2}),
        dict(mesh={"context": 2}, context_attention="ring"),
        dict(mesh={"stage": 2}, microbatches=4),
        dict(mesh={"stage": 2}, microbatches=2, pipeline="zero_bubble", model="experts", dtype="bfloat16"),
    ],
    4: [
        dict(mesh={"data": 2, "fsdp": 2}, dtype="bfloat16"),
        dict(mesh={"data": 4}, rules="zero3", remat="full"),
        dict(mesh={"fsdp": 2, "tensor": 2}, microbatches=2, overlap=True),
        dict(mesh={"data": 2, "fsdp": 2}, model="windowed"),
        dict(mesh={"fsdp": 2, "expert": 2}, model="experts", expert_rows_factor=1.0),  # too little room: steps are run again
        dict(mesh={"expert": 2, "tensor": 2}, model="mla"),
        dict(mesh={"stage": 2, "fsdp": 2}, microbatches=2, overlap=True),
    ],
    8: [
        dict(mesh={"data": 2, "fsdp": 2, "tensor": 2}, overlap=True),
        dict(mesh={"fsdp": 8}),
        dict(mesh={"data": 4, "tensor": 2}, model="windowed"),
        dict(mesh={"fsdp": 2, "context": 2, "tensor": 2}),
        dict(mesh={"fsdp": 2, "expert": 2, "tensor": 2}, model="experts", dtype="bfloat16"),
        dict(mesh={"data": 2, "fsdp": 2, "expert": 2}, model="mla"),
        dict(mesh={"stage": 2, "context": 2, "tensor": 2}, microbatches=2, pipeline="gpipe"),
        dict(mesh={"stage": 2, "expert": 4}, microbatches=2, model="experts"),
    ],
}
OPTIMIZERS: dict[str, mw.SGD | mw.AdamW] = {
    "sgd": mw.SGD(lr=0.1, momentum=0.9),
    "adamw": mw.AdamW(lr=1e-3, eps=1e-3),  # an eps that does not amplify rounding
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


def make_model(kind: str, seed: int = 3) -> mw.Model:
    settings = dict(MODELS[kind])
    return mw.Model(settings.pop("model"), seed=seed, dtype="float32", **settings)


def train(case: dict[str, Any], optimizer: str, arrays: dict[str, np.ndarray] | None = None) -> dict[str, Any]:
    """Loss and gradients, then three steps; every number of it as bits. `arrays` takes the gradients and the weights after the steps."""
    settings = dict(case)
    model = make_model(settings.pop("model", "dense"))
    trainer = mw.Trainer(model, OPTIMIZERS[optimizer], clip=1.0, show=False, **settings)
    loss, gradients = model.loss_and_gradients(batch(100))
    steps = [trainer.step(batch(step)) for step in range(3)]
    weights = {name: weight.gather() for name, weight in model.state_dict().items()}
    if arrays is not None:
        arrays.update({f"gradient of {name}": gradient for name, gradient in gradients.items()})
        arrays.update(weights)
    return {
        "loss": loss.hex(),
        "gradients": digest(gradients),
        "steps": [[m.loss.hex(), m.grad_norm.hex(), m.peak_bytes] for m in steps],
        "terms": {name: value for name, value in steps[-1].terms.items() if name != "step_seconds"},
        "load": {name: list(value) for name, value in steps[-1].expert_load.items()},
        "weights": digest(weights),
        "state": digest({name: trainer._step.read_state(name) for name in trainer._step.state_names()}),
        "generated": mw.Generator(model).generate([[1, 2, 3], [4, 5]], max_new_tokens=5),
    }


def equality(output: Path) -> None:
    size = int(os.environ["OMPI_COMM_WORLD_SIZE"])
    results = [[train(case, optimizer) for optimizer in OPTIMIZERS] for case in CASES[size]]
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
    trainer(own_folder(output))


def own_places_of_a_checkpoint(output: Path) -> None:
    trainer().save(own_folder(output))


def other_library(output: Path) -> None:
    if is_second():
        os.environ["MESHWRIGHT_MPI_LIBRARY"] = str(output / "libmpi.so.40")
    trainer()


def save_pretrained(output: Path) -> None:
    trainer(dtype="bfloat16").model.save_pretrained(output)


def one_fails(output: Path) -> None:
    run = trainer()
    if is_second():
        raise RuntimeError("the second rank had enough")
    run.step(batch(0))  # waits for it


def one_leaves(output: Path) -> None:
    run = trainer()
    if is_second():
        sys.exit(0)
    run.step(batch(0))


PROFILED: dict[str, dict[str, Any]] = {
    "fsdp": dict(mesh={"fsdp": 2}, overlap=True, microbatches=2),
    "stage": dict(mesh={"stage": 2}, microbatches=4),
}


def profiled(output: Path) -> None:
    """By Trainer.profile, which tells every rank the same, and by a run."""
    for name, settings in PROFILED.items():
        profile = mw.Trainer(make_model("dense"), mw.AdamW(lr=1e-3), show=False, **settings).profile(batch(0), steps=2)
        assert profile.ranks == [0, 1]
        run = mw.Trainer(make_model("dense"), mw.AdamW(lr=1e-3), show=False, profile=2, output=output / name, save_every=100, **settings)
        run.fit([batch(step) for step in range(5)], steps=5)
        assert run.profiled is not None and run.profiled.steps == [2, 3]


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]))
