"""Predicts published training runs on clusters that are not here, with one set of constants per chip.

    python benchmarks/scale.py [--json]

Prints for each run what was published, what `mw.plan` predicts, how far apart they are, and how long planning took. Assumptions beyond the
published settings stand in RUNS; the two measured constants of each chip stand in configs/hardware and are printed.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import meshwright as mw
from meshwright.packaged import configs_folder


@dataclass(frozen=True)
class Run:
    name: str
    source: str
    model: dict[str, Any]
    settings: dict[str, Any]
    published: float
    figure: str = "mfu"
    """`mfu` or `tokens_per_second_per_chip`."""


def published_model(name: str, **changed: Any) -> dict[str, Any]:
    """The fields of a file in configs/models."""
    return json.loads((configs_folder() / "models" / f"{name}.json").read_text(encoding="utf-8")) | changed


# Chowdhery et al. 2022, table 1: multi-query attention, SwiGLU of width 4 d, one matrix for embedding and head. Its attention and mlp run
# side by side; here one stands behind the other.
PALM_540B = {
    "family": "llama",
    "embedding_dim": 18432,
    "mlp_dim": 73728,
    "num_layers": 118,
    "num_query_heads": 48,
    "num_kv_heads": 1,
    "head_dim": 256,
    "vocab_size": 256000,
    "max_position_embeddings": 2048,
    "tie_embeddings": True,
    "rope": {"theta": 10000.0},
}
# Nothing in a model of 12 parts divides by 12 but its heads and its mlp: vocabulary and sequence take the largest factor that does.
_STORED = ["kv_heads:tensor part", "q_per_kv:tensor", "mlp:tensor", "vocab:tensor part", "*:fsdp"]
TWELVE_WAYS = {
    "compute": [
        "batch:data",
        "batch:fsdp",
        "kv_heads:tensor part",
        "q_per_kv:tensor",
        "mlp:tensor",
        "vocab:tensor part",
        "seq:tensor part",
    ],
    "parameters": _STORED,
    "gradients": _STORED,
    "optimizer": _STORED,
}
# Without recomputing matrix products: norms, activations and residual sums are cheap to make again.
CHEAP_AGAIN = "custom:query_proj,key_proj,value_proj,context,attention_residual,mlpwi_0,mlpwi_1"
LLAMA = published_model("llama3.1-405b")
LLAMA_RUN = {
    "hardware": "h100",
    "rules": "zero1",
    "pipeline": "interleaved",
    "interleave": 8,  # one layer at a time: 16 stages of 8 layers
    "remat": CHEAP_AGAIN,
}

RUNS = (
    Run(
        "Llama 3 405B, 8,192 H100",
        "The Llama 3 Herd of Models, table 4",
        LLAMA,
        {**LLAMA_RUN, "mesh": dict(data=64, stage=16, tensor=8), "seq": 8192, "batch": 64 * 32, "microbatches": 32},
        0.43,
    ),
    Run(
        "Llama 3 405B, 16,384 H100",
        "The Llama 3 Herd of Models, table 4",
        LLAMA,
        {**LLAMA_RUN, "mesh": dict(data=128, stage=16, tensor=8), "seq": 8192, "batch": 128 * 16, "microbatches": 16},
        0.41,
    ),
    Run(
        "Llama 3 405B, 131,072 tokens",
        "The Llama 3 Herd of Models, table 4",
        LLAMA,
        {**LLAMA_RUN, "mesh": dict(data=8, stage=16, context=16, tensor=8), "seq": 131072, "batch": 8 * 16, "microbatches": 16},
        0.38,
    ),
    Run(
        "DeepSeek V3, 2,048 H800",
        "DeepSeek-V3 Technical Report: 180 K GPU hours per trillion tokens",
        published_model("deepseek3-671b"),
        {
            "hardware": "h800",
            "mesh": dict(data=2, stage=16, expert=64),
            "rules": "zero1",
            "seq": 4096,
            "batch": 15360,
            "microbatches": 120,
            "pipeline": "zero_bubble",  # for DualPipe
            "dot_dtype": "float8",
            "tokens_cross_once": True,  # its all-to-all sends a token once to a node
            "remat": "custom:context,attention_residual",
        },
        1e12 / (180e3 * 3600),
        "tokens_per_second_per_chip",
    ),
    Run(
        "MegaScale 175B, 12,288 A100",
        "MegaScale (NSDI 2024), table 2",
        published_model("gpt3-175b", vocab_size=64000),
        {
            "hardware": "a100",
            "mesh": dict(data=192, stage=8, tensor=8),
            "rules": "zero1",
            "seq": 2048,
            "batch": 6144,
            "microbatches": 32,
            "pipeline": "interleaved",
            "interleave": 6,
        },
        0.552,
    ),
    Run(
        "PaLM 540B, 6,144 TPU v4",
        "PaLM: Scaling Language Modeling with Pathways, table 3",
        PALM_540B,
        {
            "hardware": "tpu-v4",
            "mesh": dict(data=2, fsdp=256, tensor=12),
            "rules": TWELVE_WAYS,
            "seq": 2048,
            "batch": 2048,
            "remat": "full",
        },
        0.462,
    ),
)


def predict(run: Run) -> dict[str, Any]:
    """The prediction beside the published figure."""
    start = time.process_time()  # of this process: a busy machine does not count
    report = mw.plan(run.model, dtype="bfloat16", clip=1.0, **run.settings)
    seconds = time.process_time() - start
    estimate = report.estimate
    assert estimate is not None
    predicted = getattr(estimate, run.figure)
    return {
        "run": run.name,
        "source": run.source,
        "figure": run.figure,
        "published": run.published,
        "predicted": predicted,
        "error": predicted / run.published - 1,
        "mfu": estimate.mfu,
        "step_seconds": estimate.step_seconds,
        "shares": {name: spent / estimate.step_seconds for name, spent in estimate.seconds.items()},
        "peak_bytes": report.needed_bytes,
        "chip_bytes": report.available_bytes,
        "fits": report.fits,
        "assumptions": estimate.assumptions,
        "settings": run.settings,
        "planning_seconds": seconds,
    }


def planning_seconds(*chips: int) -> list[float]:
    """Processor time to plan one model on 512 chips, or on so many more copies of them: the best of five, in turns."""
    best = [float("inf")] * len(chips)
    for _ in range(5):
        for i, count in enumerate(chips):
            start = time.process_time()
            mw.plan(
                LLAMA,
                mesh=dict(data=count // 512, fsdp=64, tensor=8),
                hardware="h200",
                seq=8192,
                batch=count // 8,
                dtype="bfloat16",
                remat="full",
            )
            best[i] = min(best[i], time.process_time() - start)
    return best


def most_memory() -> int:
    """Bytes that this process held at most."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def main() -> None:
    rows = [predict(run) for run in RUNS]
    few, many = planning_seconds(512, 51200)
    if "--json" in sys.argv[1:]:
        print(json.dumps({"runs": rows, "planning_seconds": {"512": few, "51200": many}, "memory_bytes": most_memory()}, indent=2))
        return
    print(f"{'run':<30} {'published':>10} {'predicted':>10} {'error':>7}  {'step':>7}  {'memory':>9}  planned in")
    for row in rows:
        unit = (lambda x: f"{x:.1%}") if row["figure"] == "mfu" else (lambda x: f"{x:,.0f} tok/s")
        print(
            f"{row['run']:<30} {unit(row['published']):>10} {unit(row['predicted']):>10} {row['error']:>+7.1%}  "
            f"{row['step_seconds']:5.1f} s  {row['peak_bytes'] / 2**30:5.1f} GiB  {row['planning_seconds']:.2f} s"
        )
    near = sum(abs(row["error"]) <= 0.2 for row in rows)
    print(f"{near} of {len(rows)} within 20 % of what was published")
    for name in dict.fromkeys(run.settings["hardware"] for run in RUNS):
        chip = next(row["assumptions"] for row, run in zip(rows, RUNS, strict=True) if run.settings["hardware"] == name)
        print(f"{name}: flops_efficiency {chip['flops_efficiency']}, bandwidth_efficiency {chip['bandwidth_efficiency']}")
    print(f"405B on 512 chips planned in {few:.2f} s, on 51,200 in {many:.2f} s; this process held {most_memory() / 2**20:.0f} MiB at most")


if __name__ == "__main__":
    main()
