"""PyTorch: the Llama or Mixtral of transformers, eager or compiled, with fused AdamW; bfloat16 is autocast over FP32 masters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers

from peers.contract import ADAMW, CLIP, decays, token_ids


def step_of(spec: dict[str, Any]) -> Callable[[], float]:
    torch.set_num_threads(spec["threads"])
    options = {"experts_implementation": spec["experts"]} if "experts" in spec else {}
    transformers.logging.disable_progress_bar()
    net = transformers.AutoModelForCausalLM.from_pretrained(spec["folder"], dtype=torch.float32, attn_implementation="sdpa", **options)
    net.train()
    groups: dict[bool, list[Any]] = {True: [], False: []}
    for name, parameter in net.named_parameters():
        groups[decays(name, parameter.ndim)].append(parameter)
    fields = [{"params": groups[True]}, {"params": groups[False], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(fields, fused=True, **ADAMW)
    ids = torch.from_numpy(token_ids(net.config.vocab_size, spec["batch"], spec["seq"]))

    def forward() -> Any:
        with torch.autocast("cpu", torch.bfloat16, enabled=spec["dtype"] == "bfloat16"):
            logits = net(input_ids=ids, use_cache=False).logits
            return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten())

    loss_of = torch.compile(forward) if spec["compile"] else forward

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), CLIP)
        optimizer.step()
        return float(loss.item())

    return step
