"""A training step beside PyTorch eager, as the ratio of interleaved runs.

    python benchmarks/compare.py model=small dtype=float32 runs=5

Each run is a process of its own that makes a few steps and reports its fastest and its median one; ours and PyTorch's take turns, with the
same threads and huge pages for both. PyTorch runs the same Llama (transformers' shapes, written here in plain torch) with fused AdamW.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

BATCH, SEQ = 8, 256
ROOT = Path(__file__).resolve().parent.parent


def measure(step, steps: int) -> dict[str, float]:
    for _ in range(2):
        step()
    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return {"median": statistics.median(seconds), "best": min(seconds)}


def ours(model: str, dtype: str, threads: int, steps: int) -> dict[str, float]:
    import meshwright as mw
    import numpy as np

    net = mw.Model(model, seed=0)
    trainer = mw.Trainer(net, mw.AdamW(lr=1e-4), dtype=dtype, clip=1.0, show=False, threads=threads)
    ids = np.random.default_rng(0).integers(0, net.config.vocab_size, (BATCH, SEQ))
    return measure(lambda: trainer.step({"input_ids": ids}), steps)


def pytorch(model: str, dtype: str, threads: int, steps: int) -> dict[str, float]:
    import torch
    import transformers

    torch.set_num_threads(threads)
    fields = json.loads((ROOT / "configs" / "models" / f"{model}.json").read_text())
    config = transformers.LlamaConfig(
        vocab_size=fields["vocab_size"],
        hidden_size=fields["embedding_dim"],
        intermediate_size=fields["mlp_dim"],
        num_hidden_layers=fields["num_layers"],
        num_attention_heads=fields["num_query_heads"],
        num_key_value_heads=fields["num_kv_heads"],
        head_dim=fields["head_dim"],
        max_position_embeddings=max(SEQ, fields["max_position_embeddings"]),
        tie_word_embeddings=fields["tie_embeddings"],
    )
    config._attn_implementation = "sdpa"
    torch.manual_seed(0)
    net = transformers.LlamaForCausalLM(config).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True)
    ids = torch.randint(0, config.vocab_size, (BATCH, SEQ))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            hidden = net.model(input_ids=ids).last_hidden_state
            logits = net.lm_head(hidden)
            loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        loss.item()

    return measure(step, steps)


def run_one(peer: str, settings: dict[str, str]) -> dict[str, float]:
    # OPENBLAS_CORETYPE stays as it is: it must not decide our speed, and torch's own BLAS does not read it.
    environment = dict(os.environ, THP_MEM_ALLOC_ENABLE="1", GLIBC_TUNABLES="glibc.malloc.hugetlb=1", OMP_NUM_THREADS=settings["threads"])
    command = [sys.executable, __file__, f"peer={peer}", *(f"{key}={value}" for key, value in settings.items())]
    result: dict[str, float] = json.loads(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
    return result


def main() -> None:
    settings = {"model": "small", "dtype": "float32", "runs": "5", "steps": "5", "threads": str(len(os.sched_getaffinity(0)))}
    for argument in sys.argv[1:]:
        key, _, value = argument.partition("=")
        settings[key] = value
    peer = settings.pop("peer", None)
    if peer is not None:
        measured = {"ours": ours, "pytorch": pytorch}[peer](
            settings["model"], settings["dtype"], int(settings["threads"]), int(settings["steps"])
        )
        print(json.dumps(measured))
        return
    rows: dict[str, list[dict[str, float]]] = {"ours": [], "pytorch": []}
    for _ in range(int(settings["runs"])):
        for name, results in rows.items():
            results.append(run_one(name, settings))
    tokens = BATCH * SEQ
    runs = f"{settings['runs']} interleaved runs of {settings['steps']} steps"
    print(f"{settings['model']} {settings['dtype']} {BATCH}x{SEQ}, {settings['threads']} threads, {runs}")
    for name, results in rows.items():
        median = statistics.median(r["median"] for r in results)
        print(f"  {name:<8} median {median:.3f} s ({tokens / median:,.0f} tokens/s), best {min(r['best'] for r in results):.3f} s")
    ratios = sorted(theirs["median"] / own["median"] for own, theirs in zip(rows["ours"], rows["pytorch"], strict=True))
    best = min(r["best"] for r in rows["pytorch"]) / min(r["best"] for r in rows["ours"])
    spread = f"median {statistics.median(ratios):.2f} (from {ratios[0]:.2f} to {ratios[-1]:.2f})"
    print(f"  PyTorch's time over ours, run by run: {spread}; best over best {best:.2f}")


if __name__ == "__main__":
    main()
