"""Tiny random models of `transformers`, saved to folders: what our logits, gradients and texts are compared with.

Every case has weights far from special values (norms away from 1, biases away from 0), so that a factor left out shows.
"""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file

VOCAB = 96
SIZES = dict(
    vocab_size=VOCAB,
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=3,
    num_attention_heads=6,
    max_position_embeddings=128,
    rms_norm_eps=1e-5,
    bos_token_id=1,
    eos_token_id=2,
)
PLAIN_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}

YARN_ROPE = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "original_max_position_embeddings": 16,
}
DEEPSEEK_ROPE = YARN_ROPE | {"mscale": 0.7, "mscale_all_dim": 0.7}
EXPERTS = dict(num_experts_per_tok=2, moe_intermediate_size=32)
DEEPSEEK: dict[str, Any] = dict(
    num_key_value_heads=6,
    n_routed_experts=8,
    n_shared_experts=2,
    first_k_dense_replace=1,
    kv_lora_rank=20,
    qk_nope_head_dim=10,
    qk_rope_head_dim=6,
    v_head_dim=12,
    rope_parameters=DEEPSEEK_ROPE,
    **EXPERTS,
)

# name -> (model type, what differs from SIZES). Windows and chunks are shorter than the sequences of the tests.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama_gqa_llama3_rope": ("llama", dict(num_key_value_heads=2, rope_parameters=LLAMA3_ROPE)),
    "llama_mqa": ("llama", dict(num_key_value_heads=1, rope_parameters=PLAIN_ROPE)),
    "llama_mha_tied": ("llama", dict(num_key_value_heads=6, tie_word_embeddings=True, rope_parameters=LLAMA3_ROPE)),
    "llama_own_head_dim": ("llama", dict(num_key_value_heads=3, head_dim=12, rope_parameters=PLAIN_ROPE)),
    "llama_linear_rope_biases": (
        "llama",
        dict(
            num_key_value_heads=3,
            attention_bias=True,
            mlp_bias=True,
            rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
        ),
    ),
    "mistral_window": ("mistral", dict(num_key_value_heads=2, head_dim=8, sliding_window=7, rope_parameters=PLAIN_ROPE)),
    "mistral_no_window": ("mistral", dict(num_key_value_heads=2, sliding_window=None, rope_parameters=PLAIN_ROPE)),
    "mixtral": ("mixtral", dict(num_key_value_heads=2, num_local_experts=5, num_experts_per_tok=2, rope_parameters=PLAIN_ROPE)),
    "gemma": ("gemma", dict(num_key_value_heads=1, head_dim=16, hidden_activation="gelu_pytorch_tanh", rope_parameters=PLAIN_ROPE)),
    "gemma2": (
        "gemma2",
        dict(
            num_key_value_heads=2,
            head_dim=16,
            query_pre_attn_scalar=24,
            sliding_window=7,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
            attn_logit_softcapping=3.0,
            final_logit_softcapping=2.0,
            hidden_activation="gelu_pytorch_tanh",
            rope_parameters=PLAIN_ROPE,
        ),
    ),
    "gemma3": (
        "gemma3_text",
        dict(
            num_key_value_heads=2,
            head_dim=16,
            query_pre_attn_scalar=20,
            sliding_window=7,
            layer_types=["sliding_attention", "sliding_attention", "full_attention"],
            hidden_activation="gelu_pytorch_tanh",
            rope_parameters={
                "full_attention": {"rope_type": "linear", "rope_theta": 50000.0, "factor": 4.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            },
        ),
    ),
    "qwen3": ("qwen3", dict(num_key_value_heads=2, head_dim=16, rope_parameters=PLAIN_ROPE)),
    "qwen3_tied": ("qwen3", dict(num_key_value_heads=3, head_dim=10, tie_word_embeddings=True, rope_parameters=PLAIN_ROPE)),
    "qwen3_moe": (
        "qwen3_moe",
        dict(num_key_value_heads=2, head_dim=16, num_experts=6, norm_topk_prob=True, rope_parameters=PLAIN_ROPE, **EXPERTS),
    ),
    "qwen3_moe_not_normalised": (
        "qwen3_moe",
        dict(num_key_value_heads=3, head_dim=10, num_experts=7, norm_topk_prob=False, rope_parameters=PLAIN_ROPE, **EXPERTS),
    ),
    "deepseek_v2_lite": ("deepseek_v2", DEEPSEEK | dict(q_lora_rank=None, topk_method="greedy", n_group=1, topk_group=1)),
    "deepseek_v2_groups": (
        "deepseek_v2",
        DEEPSEEK
        | dict(q_lora_rank=14, topk_method="group_limited_greedy", n_group=4, topk_group=2, routed_scaling_factor=3.0, n_shared_experts=1),
    ),
    "deepseek_v3": (
        "deepseek_v3",
        DEEPSEEK
        | dict(
            q_lora_rank=14,
            n_group=4,
            topk_group=2,
            num_experts_per_tok=3,
            routed_scaling_factor=2.5,
            norm_topk_prob=True,
            n_shared_experts=1,
        ),
    ),
    "gpt_oss": (
        "gpt_oss",
        dict(
            num_key_value_heads=2,
            head_dim=16,
            num_local_experts=5,
            num_experts_per_tok=2,
            sliding_window=7,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
            rope_parameters=YARN_ROPE | {"truncate": False},
        ),
    ),
    "llama4_scout": (
        "llama4_text",
        dict(
            num_key_value_heads=2,
            head_dim=8,
            intermediate_size=32,
            intermediate_size_mlp=80,
            num_local_experts=4,
            num_experts_per_tok=1,
            interleave_moe_layer_step=1,
            attention_chunk_size=8,
            no_rope_layers=[1, 1, 0],
            use_qk_norm=True,
            attn_temperature_tuning=True,
            floor_scale=5,
            attn_scale=0.3,
            rope_parameters=LLAMA3_ROPE,
            pad_token_id=0,
        ),
    ),
    "llama4_maverick": (
        "llama4_text",
        dict(
            num_key_value_heads=3,
            head_dim=8,
            intermediate_size=32,
            intermediate_size_mlp=80,
            num_local_experts=6,
            num_experts_per_tok=1,
            interleave_moe_layer_step=2,
            attention_chunk_size=8,
            no_rope_layers=[1, 1, 0],
            use_qk_norm=False,
            attn_temperature_tuning=True,
            floor_scale=1000,
            rope_parameters=PLAIN_ROPE,
            pad_token_id=0,
        ),
    ),
    "gpt2": ("gpt2", dict(n_embd=48, n_layer=3, n_head=6, n_inner=80, n_positions=128, layer_norm_epsilon=1e-5)),
}
# A layer's choice of experts for a padding token differs (it means nothing), and Llama 4's temperature in transformers counts padding.
COUNTS_PADDING = {"llama4_scout", "llama4_maverick"}


def make_config(name: str, **more: Any) -> transformers.PretrainedConfig:
    model_type, changes = CASES[name]
    changes = changes | more
    sizes = {"vocab_size": VOCAB, "bos_token_id": 1, "eos_token_id": 2} if model_type == "gpt2" else SIZES
    config = transformers.AutoConfig.for_model(model_type, **{**sizes, **changes})
    config._attn_implementation = "eager"
    return config


def make_model(name: str, seed: int = 0, dtype: torch.dtype = torch.float32, **changes: Any) -> transformers.PreTrainedModel:
    """The case's model in evaluation mode, on the CPU, with eager attention: the same weights for the same seed.

    changes: of its configuration.
    """
    model = transformers.AutoModelForCausalLM.from_config(make_config(name, **changes)).to(torch.float32).eval()
    generator = torch.Generator().manual_seed(seed)
    tensors = [*model.named_parameters(), *((n, b) for n, b in model.named_buffers() if n.endswith("e_score_correction_bias"))]
    with torch.no_grad():
        for tensor_name, tensor in tensors:
            noise = torch.randn(tensor.shape, generator=generator)
            if "norm" in tensor_name.split(".")[-2] or ".ln_" in tensor_name:
                offset = 0.0 if "gemma" in name or tensor_name.endswith("bias") else 1.0  # Gemma keeps what is added to 1
                tensor.copy_(offset + 0.3 * noise)
            elif tensor.ndim == 1:
                tensor.copy_(0.1 * noise)
            else:
                tensor.copy_(noise * tensor.shape[-1] ** -0.5)
    return model.to(dtype)


def save_model(name: str, folder: str | Path, seed: int = 0, dtype: torch.dtype = torch.float32, **changes: Any) -> Path:
    """Saves the case's model as a Hugging Face folder and gives its path."""
    path = Path(folder) / name
    make_model(name, seed, dtype, **changes).save_pretrained(path)
    return path


def make_batch(batch: int = 3, seq: int = 24, seed: int = 0) -> torch.Tensor:
    """Token ids [batch, seq] without the end-of-text id."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCAB, (batch, seq), generator=generator)


def make_padding(batch: int = 3, seq: int = 24, side: str = "right") -> torch.Tensor:
    """An attention mask [batch, seq] that leaves out 0, 5, 10 ... tokens of the rows at one side."""
    positions = torch.arange(seq).expand(batch, seq)
    left_out = 5 * torch.arange(batch)[:, None]
    return ((positions < seq - left_out) if side == "right" else (positions >= left_out)).long()


def gradients(model: transformers.PreTrainedModel, **batch: torch.Tensor) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients under the names and in the layout of the files, in which experts are tensors of their own; a tied weight stands
    once, under its embedding's name."""
    model.zero_grad(set_to_none=True)
    loss = model(**batch).loss
    loss.backward()
    # transformers itself takes them apart: a model whose weights are the gradients is saved.
    filled = copy.deepcopy(model)
    with torch.no_grad():
        for (_, parameter), (_, source) in zip(filled.named_parameters(), model.named_parameters(), strict=True):
            parameter.copy_(torch.zeros_like(parameter) if source.grad is None else source.grad)
    with tempfile.TemporaryDirectory() as folder:
        filled.save_pretrained(folder)
        tensors = load_file(Path(folder) / "model.safetensors")
    return float(loss.detach()), {name: tensor for name, tensor in tensors.items() if not name.endswith("e_score_correction_bias")}
