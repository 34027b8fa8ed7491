"""Mixtures of experts, op by op, against the blocks of transformers: outputs and every gradient."""

from __future__ import annotations

import meshwright as mw
import numpy as np
import pytest
import torch
from meshwright import ops
from transformers import DeepseekV2Config, DeepseekV3Config, GptOssConfig, Llama4TextConfig, MixtralConfig, Qwen3MoeConfig
from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2Moe
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3MoE
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssMLP
from transformers.models.llama4.modeling_llama4 import Llama4TextMoe
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeSparseMoeBlock

BATCH, SEQ, EMBED, EXPERTS, MLP = 3, 17, 24, 8, 20
DEEPSEEK = dict(
    hidden_size=EMBED, moe_intermediate_size=MLP, n_routed_experts=EXPERTS, n_shared_experts=2, num_experts_per_tok=3, num_attention_heads=4
)
GROUPS = dict(n_group=4, topk_group=2, routed_scaling_factor=2.5)

# name -> (block of transformers, what ops.route is asked for)
BLOCKS = {
    "mixtral": (
        lambda: MixtralSparseMoeBlock(
            MixtralConfig(hidden_size=EMBED, intermediate_size=MLP, num_local_experts=EXPERTS, num_experts_per_tok=2)
        ),
        dict(k=2, normalize=True),
    ),
    "qwen3_moe": (
        lambda: Qwen3MoeSparseMoeBlock(
            Qwen3MoeConfig(hidden_size=EMBED, moe_intermediate_size=MLP, num_experts=EXPERTS, num_experts_per_tok=4, norm_topk_prob=True)
        ),
        dict(k=4, normalize=True),
    ),
    "deepseek_v2_lite": (
        lambda: DeepseekV2Moe(DeepseekV2Config(**DEEPSEEK, topk_method="greedy", routed_scaling_factor=1.0)),
        dict(k=3),
    ),
    "deepseek_v2": (
        lambda: DeepseekV2Moe(DeepseekV2Config(**DEEPSEEK, topk_method="group_limited_greedy", **GROUPS)),
        dict(k=3, groups=4, groups_selected=2, scaling=2.5),
    ),
    "deepseek_v3": (
        lambda: DeepseekV3MoE(DeepseekV3Config(**DEEPSEEK, norm_topk_prob=True, **GROUPS)),
        dict(k=3, score="sigmoid", groups=4, groups_selected=2, group_score="top2_sum", normalize=True, scaling=2.5),
    ),
    "gpt_oss": (
        lambda: GptOssMLP(GptOssConfig(hidden_size=EMBED, intermediate_size=MLP, num_local_experts=EXPERTS, num_experts_per_tok=4)),
        dict(k=4, score="softmax_of_top_k"),
    ),
    "llama4": (
        lambda: Llama4TextMoe(Llama4TextConfig(hidden_size=EMBED, intermediate_size=MLP, num_local_experts=EXPERTS, num_experts_per_tok=1)),
        dict(k=1, score="sigmoid"),
    ),
}


def clamped(gate, up):
    """GPT-OSS: (up + 1) * gate * sigmoid(1.702 gate), gate at most 7, up within 7."""
    gate, up = ops.minimum(gate, 7.0), ops.maximum(ops.minimum(up, 7.0), -7.0)
    return (up + 1.0) * gate * ops.sigmoid(gate * 1.702)


def half(rows, index):
    part = ops.slice(rows, "gate_up", index, 1)
    return ops.merge(part, [dim for dim in part.dims if dim != "expert_rows"], "expert_mlp")


def layer(route, x, w, dy):
    logits = ops.dot(x, w["router"], "embed")
    if "router_bias" in w:
        logits = logits + w["router_bias"]
    weights, indices = ops.route(logits, selection_bias=w.get("selection_bias"), **route)
    scaled = route == BLOCKS["llama4"][1]
    rows, experts = ops.to_expert_rows(x, indices, EXPERTS, weights if scaled else None), ops.expert_of_rows(indices, EXPERTS)
    if "gate_up" in w:
        both = ops.grouped_dot(rows, w["gate_up"], experts, "embed")
        if "gate_up_bias" in w:
            both = both + ops.gather_rows(w["gate_up_bias"], experts, "experts")
        gate, up = half(both, 0), half(both, 1)
    else:
        gate, up = ops.grouped_dot(rows, w["gate"], experts, "embed"), ops.grouped_dot(rows, w["up"], experts, "embed")
    hidden = clamped(gate, up) if "gate_up_bias" in w else ops.gated_activation(gate, up)
    down = ops.grouped_dot(hidden, w["down"], experts, "expert_mlp")
    if "down_bias" in w:
        down = down + ops.gather_rows(w["down_bias"], experts, "experts")
    y = ops.combine(down, indices, EXPERTS, None if scaled else weights)
    if "shared_gate" in w:
        shared = ops.gated_activation(ops.dot(x, w["shared_gate"], "embed"), ops.dot(x, w["shared_up"], "embed"))
        y = y + ops.dot(shared, w["shared_down"], "mlp")
    return {"y": y, "loss": ops.reduce_sum(y * dy, ["batch", "seq", "embed"])}


DIMS = {
    "router": ("experts", "embed"),
    "router_bias": ("experts",),
    "selection_bias": ("experts",),
    "gate": ("experts", "expert_mlp", "embed"),
    "up": ("experts", "expert_mlp", "embed"),
    "down_bias": ("experts", "embed"),
    "gate_up_bias": ("experts", "expert_mlp", "gate_up"),
    "shared_gate": ("mlp", "embed"),
    "shared_up": ("mlp", "embed"),
    "shared_down": ("embed", "mlp"),
}


def views(named: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of a block (or their gradients) under our names, dims split as ours are."""
    named = {name.removeprefix("gate.").removeprefix("router."): value for name, value in named.items()}
    found = {"router": named["weight"], "down": named["experts.down_proj"]}
    gate_up = named["experts.gate_up_proj"]
    if gate_up.shape[1] != EMBED:
        found["gate"], found["up"] = gate_up[:, :MLP], gate_up[:, MLP:]
    elif "bias" in named:
        found["gate_up"] = gate_up.reshape(EXPERTS, EMBED, MLP, 2)
        found["router_bias"], found["down_bias"] = named["bias"], named["experts.down_proj_bias"]
        found["gate_up_bias"] = named["experts.gate_up_proj_bias"].reshape(EXPERTS, MLP, 2)
    else:
        found["gate_up"] = gate_up.reshape(EXPERTS, EMBED, 2, MLP)
    for name, value in named.items():
        if name.startswith("shared_expert"):
            found["shared_" + name.split(".")[1].removesuffix("_proj")] = value
    return {name: value.detach().contiguous() for name, value in found.items()}


def spec(key: str, array: np.ndarray, arrays: dict[str, np.ndarray]) -> mw.Spec:
    if key == "gate_up":
        dims = ("experts", "embed", "expert_mlp", "gate_up") if "gate_up_bias" in arrays else ("experts", "embed", "gate_up", "expert_mlp")
    elif key == "down":
        dims = ("experts", "expert_mlp", "embed") if "gate_up" in arrays else ("experts", "embed", "expert_mlp")
    else:
        dims = DIMS[key]
    return mw.Spec("float32", **dict(zip(dims, array.shape, strict=True)))


def near(ours, theirs, what: str) -> None:
    theirs = theirs.detach().numpy()
    assert np.abs(ours - theirs).max() <= 2e-5 * np.abs(theirs).max(), what


@pytest.mark.parametrize("name", BLOCKS)
def test_block(name) -> None:
    torch.manual_seed(list(BLOCKS).index(name))
    make, route = BLOCKS[name]
    block = make()
    for value in block.parameters():
        torch.nn.init.normal_(value, std=0.5)
    arrays = {key: view.numpy() for key, view in views(dict(block.named_parameters())).items()}
    wanted = ["x", *(f"w.{key}" for key in arrays)]
    if name == "deepseek_v3":
        arrays["selection_bias"] = block.gate.e_score_correction_bias.normal_(std=0.2).numpy()
    x = torch.randn(BATCH, SEQ, EMBED, requires_grad=True)
    y = block(x)
    y = (y[0] if isinstance(y, tuple) else y).reshape(BATCH, SEQ, EMBED)
    dy = torch.randn_like(y)
    y.backward(dy)
    gradients = views({key: value.grad for key, value in block.named_parameters()})

    def traced(x, w, dy):
        return layer(route, x, w, dy)

    specs = {key: spec(key, array, arrays) for key, array in arrays.items()}
    tokens = mw.Spec("float32", batch=BATCH, seq=SEQ, embed=EMBED)
    program = mw.trace(traced, x=tokens, w=specs, dy=tokens).gradient("loss", of=wanted)
    for kernels in ("cpu", "reference"):
        found = program.run(x=x.detach().numpy(), w=arrays, dy=dy.numpy(), kernels=kernels)
        near(found["y"], y, "y")
        near(found["gradient.x"], x.grad, "x")
        for key, value in gradients.items():
            near(found[f"gradient.w.{key}"], value, key)
