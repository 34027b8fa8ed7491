"""Random small models of each kind on random meshes of threads: what the property tests draw from."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import meshwright as mw
import numpy as np
from meshwright._core import remat_policies

AXES = [field.name for field in fields(mw.Mesh)]  # a new axis of the package joins by itself
MOST_RANKS = 8
RULES_FOLDER = Path(__file__).resolve().parents[2] / "configs" / "rules"
# Published models whose sizes are drawn; each kind has several families.
KINDS: dict[str, list[str]] = {
    "dense": ["llama3-8b", "qwen3-0.6b", "gemma-2b", "gpt3-52k"],
    "moe": ["mixtral-8x7b", "qwen3-30b-a3b"],
    "mla": ["deepseek2-16b", "deepseek3-671b"],
    "windowed": ["mistral-7b-v0.1", "gemma2-2b", "gemma3-12b", "gpt-oss-20b", "llama4-17b-16e"],
}
EXPERTS = {"mixtral-8x7b", "qwen3-30b-a3b", "deepseek2-16b", "deepseek3-671b", "gpt-oss-20b", "llama4-17b-16e"}
OPTIMIZERS: dict[str, mw.SGD | mw.AdamW] = {
    "sgd": mw.SGD(lr=0.1, momentum=0.9),
    "adamw": mw.AdamW(lr=1e-3, eps=1e-3),  # an eps that does not amplify rounding
}


@dataclass(frozen=True)
class Run:
    """A model, a mesh, and how a step on it is made."""

    base: str
    sizes: dict[str, Any]
    mesh: dict[str, int]
    rules: str | None
    microbatches: int
    rows: int
    seq: int
    remat: str
    optimizer: str
    packed: bool
    seed: int
    context_attention: str | None = None
    pipeline: str = "1f1b"
    interleave: int = 1

    def model(self) -> mw.Model:
        return mw.Model(self.base, **self.sizes, seed=self.seed, dtype="float32")

    def trainer(self, model: mw.Model, on_mesh: bool) -> mw.Trainer:
        more: dict[str, Any] = self.placement() if on_mesh else {"microbatches": self.microbatches}
        return mw.Trainer(model, OPTIMIZERS[self.optimizer], clip=1.0, show=False, **more)

    def placement(self) -> dict[str, Any]:
        return dict(
            mesh=self.mesh,
            rules=self.rules,
            remat=self.remat,
            microbatches=self.microbatches,
            context_attention=self.context_attention,
            pipeline=self.pipeline,
            interleave=self.interleave,
        )

    def batch(self, seed: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng((self.seed, seed))
        shape = (self.rows, self.seq)
        batch = {
            "input_ids": rng.integers(0, self.sizes["vocab_size"], shape),
            "loss_weights": rng.uniform(0.2, 1.0, shape).astype(np.float32),
        }
        if self.packed:
            batch["segment_ids"] = np.sort(rng.integers(1, 4, shape), axis=1)
        return batch


def meshes_of(ranks: int, axes: list[str] = AXES) -> Iterator[dict[str, int]]:
    """Every way to lay out that many ranks."""
    if not axes:
        if ranks == 1:
            yield {}
        return
    for size in range(1, ranks + 1):
        if ranks % size == 0:
            for rest in meshes_of(ranks // size, axes[1:]):
                yield {axes[0]: size, **rest} if size > 1 else rest


def rules_for(mesh: dict[str, int]) -> list[str | None]:
    """Layouts that use every axis of a mesh."""
    names: list[str | None] = [None]
    for path in sorted(RULES_FOLDER.glob("*.json")):
        used = {row.split(":")[1].split()[0] for row in json.loads(path.read_text())["compute"]}
        if used <= {*AXES} and {*mesh} - {"stage"} <= used:
            names.append(path.stem)
    return names


def draw_run(kind: str, seed: int, ranks: int | None = None) -> Run:
    """Sizes are drawn so that the mesh divides what it has to divide."""
    rng = np.random.default_rng((list(KINDS).index(kind), seed))
    base = str(rng.choice(KINDS[kind]))
    if ranks is None:
        ranks = int(rng.choice(np.arange(1, MOST_RANKS + 1), p=[0.03, 0.17, 0.07, 0.3, 0.03, 0.1, 0.03, 0.27]))
    meshes = list(meshes_of(ranks))
    mesh = meshes[rng.integers(len(meshes))]

    def size(axis: str) -> int:
        return mesh.get(axis, 1)

    def pick(*choices: int) -> int:
        return int(rng.choice(choices))

    tensor, stages = size("tensor"), size("stage")
    heads = pick(1, 2, 4)
    one_query = base.startswith(("deepseek", "gpt3"))
    if one_query:
        heads = tensor * pick(1, 2)
    left = tensor // math.gcd(tensor, heads)
    queries = heads if one_query else heads * left * pick(1, 2)
    head_dim = pick(4, 8)
    mlp = tensor * pick(4, 6, 12)
    layers = max(2, stages) + pick(0, 0, 1) if stages > 2 else pick(2, 3, 4) if stages == 2 else pick(2, 2, 3)
    window = pick(3, 5, 7)
    sizes: dict[str, Any] = dict(
        embedding_dim=queries * head_dim if base.startswith("gpt3") else queries * -(-pick(16, 24, 32) // queries),
        mlp_dim=mlp,
        num_layers=layers,
        num_query_heads=queries,
        num_kv_heads=heads,
        head_dim=head_dim,
        vocab_size=tensor * pick(12, 20) + (0 if tensor > 1 else pick(1, 3, 5)),
        max_position_embeddings=64,
    )
    if base in EXPERTS:
        sizes["moe"] = dict(num_experts=size("expert") * pick(1, 2) * (1 if size("expert") >= 4 else 3), experts_per_token=2)
        sizes["moe_mlp_dim"] = mlp
    if base == "llama4-17b-16e":
        sizes["moe"].update(experts_per_token=1, shared_expert_mlp_dim=mlp)
    if base.startswith("deepseek"):
        rope = pick(2, 4)
        sizes["head_dim"] = head_dim + rope
        sizes["mla"] = dict(kv_lora_rank=pick(8, 16), qk_nope_head_dim=head_dim, qk_rope_head_dim=rope, v_head_dim=pick(4, 8))
        sizes["moe"].update(num_shared_experts=1, shared_expert_mlp_dim=mlp, first_dense_layers=1)
        if base == "deepseek3-671b":
            sizes["mla"]["q_lora_rank"] = pick(6, 12)
            sizes["moe"].update(num_expert_groups=1, groups_selected=1)
            sizes["mtp_layers"] = 0
    if base == "llama4-17b-16e":
        sizes["attention_pattern"] = dict(chunk_size=window, layer_kinds=["chunked", "global_without_rope"])
        sizes["vision"] = None
    elif kind == "windowed":
        sizes["attention_pattern"] = dict(sliding_window=window)
        if base == "gemma3-12b":
            sizes["attention_pattern"]["layer_kinds"] = ["sliding", "global"]
            sizes["vision"] = None
    microbatches = stages * pick(1, 2) if stages > 1 else pick(1, 1, 2, 3)
    interleave = pick(1, 2) if stages > 1 and layers >= 2 * stages else 1
    pipeline = "interleaved" if interleave > 1 else str(rng.choice(["gpipe", "1f1b", "zero_bubble"]))
    rules = rules_for(mesh)
    seq = tensor * size("context") * 2
    return Run(
        base=base,
        sizes=sizes,
        mesh=mesh,
        rules=rules[rng.integers(len(rules))] if rng.random() < 0.5 else None,
        microbatches=microbatches,
        rows=size("data") * size("fsdp") * size("expert") * microbatches * pick(1, 1, 2),
        seq=seq * max(1, pick(8, 12, 16) // seq),
        remat=str(rng.choice([policy for policy in remat_policies() if policy != "auto"])),
        optimizer=str(rng.choice(list(OPTIMIZERS))),
        packed=bool(rng.random() < 0.3),
        seed=seed,
        context_attention=str(rng.choice(["gather", "ring"])) if size("context") > 1 else None,
        pipeline=pipeline,
        interleave=interleave,
    )


def batch_with_margins(run: Run, model: mw.Model, step: int) -> dict[str, np.ndarray]:
    """A batch whose routing no rounding can change: no token has its last chosen expert and the first one left out nearly equal."""
    for attempt in range(50):
        batch = run.batch(1000 * step + attempt)
        if run.base not in EXPERTS or _smallest_margin(model, batch) > 1e-4:
            return batch
    raise AssertionError(f"{run}: every batch has near-ties between experts")


def _smallest_margin(model: mw.Model, batch: dict[str, np.ndarray]) -> float:
    inputs = {name: batch[name] for name in ("input_ids", "segment_ids") if name in batch}
    norm = "layers.*.post_attention_norm"
    captured = model.forward(**inputs, capture=[norm]).captured
    chosen = model.config.moe.experts_per_token
    weights = model.state_dict()
    smallest = math.inf
    for scope, values in captured.items():
        prefix = f"model.{scope.rsplit('.', 1)[0]}."
        router = next((name for name in weights if name.startswith(prefix) and name.endswith((".gate.weight", ".router.weight"))), None)
        if router is None:
            continue  # a dense layer
        logits = np.asarray(values, np.float64).reshape(-1, values.shape[-1]) @ weights[router].gather().astype(np.float64).T
        ordered = np.sort(logits, axis=1)
        gaps = ordered[:, -chosen] - ordered[:, -chosen - 1]
        smallest = min(smallest, float(gaps.min() / np.abs(logits).max()))
    assert smallest < math.inf, f"no layer of {sorted(captured)} has a router among {sorted(weights)}"
    return smallest
