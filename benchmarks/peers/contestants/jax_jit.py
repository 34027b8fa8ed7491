"""JAX: Llama and Mixtral in plain jax, one jitted step that gives its buffers back; bfloat16 computes from FP32 masters.

Experts are run as `ragged_dot` over the tokens sorted by expert.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from peers.contract import ADAMW, CLIP, decays, token_ids

Tensors = dict[str, Any]
EXPERTS = "block_sparse_moe.experts"


def load(folder: Path, num_experts: int) -> Tensors:
    """The tensors by their Hugging Face names; those of the experts of a layer stacked, as [expert, in, out]."""
    tensors: Tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors |= safetensors.numpy.load_file(file)
    for layer in sorted({name.split(f".{EXPERTS}.")[0] for name in tensors if EXPERTS in name}):
        for part in ("w1", "w2", "w3"):
            names = [f"{layer}.{EXPERTS}.{expert}.{part}.weight" for expert in range(num_experts)]
            tensors[f"{layer}.{EXPERTS}.{part}"] = np.stack([tensors.pop(name).T for name in names])
    return {name: jnp.asarray(tensor) for name, tensor in tensors.items()}


def rms_norm(x: Any, weight: Any, epsilon: float) -> Any:
    wide = x.astype(jnp.float32)
    return (wide * jax.lax.rsqrt(jnp.mean(wide * wide, -1, keepdims=True) + epsilon) * weight).astype(x.dtype)


def rope(x: Any, theta: float) -> Any:
    """x [batch, seq, heads, head_dim], turned in halves."""
    half = x.shape[-1] // 2
    angles = jnp.arange(x.shape[1])[:, None] * theta ** (-jnp.arange(half) / half)
    cos, sin = (f(angles)[:, None, :].astype(jnp.float32) for f in (jnp.cos, jnp.sin))
    a, b = jnp.split(x.astype(jnp.float32), 2, -1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(x.dtype)


def mlp(x: Any, weight: Callable[[str], Any]) -> Any:
    gate, up = x @ weight("mlp.gate_proj.weight").T, x @ weight("mlp.up_proj.weight").T
    return (jax.nn.silu(gate) * up) @ weight("mlp.down_proj.weight").T


def experts(x: Any, weight: Callable[[str], Any], per_token: int) -> Any:
    """Softmax over all experts, the largest of them made to sum to one (Mixtral)."""
    tokens = x.reshape(-1, x.shape[-1])
    gates = jax.nn.softmax((tokens @ weight("block_sparse_moe.gate.weight").T).astype(jnp.float32))
    shares, chosen = jax.lax.top_k(gates, per_token)
    shares = shares / jnp.sum(shares, -1, keepdims=True)
    order = jnp.argsort(chosen.reshape(-1))
    rows = jnp.take(tokens, order // per_token, axis=0)
    counts = jnp.bincount(chosen.reshape(-1), length=gates.shape[-1])
    gate, up = (jax.lax.ragged_dot(rows, weight(f"{EXPERTS}.{part}"), counts) for part in ("w1", "w3"))
    out = jax.lax.ragged_dot(jax.nn.silu(gate) * up, weight(f"{EXPERTS}.w2"), counts)
    out = out * shares.reshape(-1)[order][:, None].astype(out.dtype)
    return jnp.zeros_like(tokens).at[order // per_token].add(out).reshape(x.shape)


def loss_of(tensors: Tensors, ids: Any, config: dict[str, Any], dtype: str) -> Any:
    epsilon, theta, size = config["rms_norm_eps"], config["rope_theta"], config["head_dim"]
    queries, keys = config["num_attention_heads"], config["num_key_value_heads"]
    cast = {name: tensor.astype(dtype) if tensor.ndim > 1 else tensor for name, tensor in tensors.items()}
    x = cast["model.embed_tokens.weight"][ids]
    batch, seq = ids.shape
    for layer in range(config["num_hidden_layers"]):

        def weight(name: str, layer: int = layer) -> Any:
            return cast[f"model.layers.{layer}.{name}"]

        h = rms_norm(x, weight("input_layernorm.weight"), epsilon)
        q, k, v = (
            (h @ weight(f"self_attn.{name}_proj.weight").T).reshape(batch, seq, heads, size)
            for name, heads in (("q", queries), ("k", keys), ("v", keys))
        )
        context = jax.nn.dot_product_attention(rope(q, theta), rope(k, theta), v, is_causal=True)
        x = x + context.reshape(batch, seq, queries * size) @ weight("self_attn.o_proj.weight").T
        h = rms_norm(x, weight("post_attention_layernorm.weight"), epsilon)
        x = x + (experts(h, weight, config["num_experts_per_tok"]) if "num_local_experts" in config else mlp(h, weight))
    logits = rms_norm(x, cast["model.norm.weight"], epsilon) @ cast["lm_head.weight"].T
    chances = jax.nn.log_softmax(logits[:, :-1].astype(jnp.float32))
    return -jnp.mean(jnp.take_along_axis(chances, ids[:, 1:, None], -1))


def step_of(spec: dict[str, Any]) -> Callable[[], float]:
    folder = Path(spec["folder"])
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    ids = jnp.asarray(token_ids(config["vocab_size"], spec["batch"], spec["seq"]))
    beta1, beta2 = ADAMW["betas"]

    def update(state: dict[str, Tensors], count: Any) -> tuple[dict[str, Tensors], Any]:
        loss, gradients = jax.value_and_grad(loss_of)(state["weight"], ids, config, spec["dtype"])
        norm = jnp.sqrt(sum(jnp.sum(g * g) for g in gradients.values()))
        scale = jnp.minimum(1.0, CLIP / (norm + 1e-6))
        new: dict[str, Tensors] = {"weight": {}, "first": {}, "second": {}}
        for name, weight in state["weight"].items():
            g = gradients[name] * scale
            first = beta1 * state["first"][name] + (1 - beta1) * g
            second = beta2 * state["second"][name] + (1 - beta2) * g * g
            change = first / (1 - beta1**count) / (jnp.sqrt(second / (1 - beta2**count)) + ADAMW["eps"])
            decay = ADAMW["weight_decay"] if decays(name, weight.ndim) else 0.0
            new["weight"][name] = weight * (1 - ADAMW["lr"] * decay) - ADAMW["lr"] * change
            new["first"][name], new["second"][name] = first, second
        return new, loss

    weights = load(folder, config.get("num_local_experts", 0))
    zeros = [{name: jnp.zeros_like(tensor) for name, tensor in weights.items()} for _ in range(2)]
    held = {"state": {"weight": weights, "first": zeros[0], "second": zeros[1]}, "count": 0}
    jitted = jax.jit(update, donate_argnums=0)

    def step() -> float:
        held["count"] += 1
        held["state"], loss = jitted(held["state"], jnp.float32(held["count"]))
        jax.block_until_ready(held["state"])
        return float(loss)

    return step
