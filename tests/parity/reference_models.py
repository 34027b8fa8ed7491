"""Tiny random models of `transformers`, saved to folders: what our logits, gradients and texts are compared with.

Every case has weights far from special values (norms away from 1, biases away from 0), so that a factor left out shows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

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

# name -> (model type, what differs from SIZES)
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
    # The window is shorter than the sequences of the tests.
    "mistral_window": ("mistral", dict(num_key_value_heads=2, head_dim=8, sliding_window=7, rope_parameters=PLAIN_ROPE)),
    "mistral_no_window": ("mistral", dict(num_key_value_heads=2, sliding_window=None, rope_parameters=PLAIN_ROPE)),
    "qwen3": ("qwen3", dict(num_key_value_heads=2, head_dim=16, rope_parameters=PLAIN_ROPE)),
    "qwen3_tied": ("qwen3", dict(num_key_value_heads=3, head_dim=10, tie_word_embeddings=True, rope_parameters=PLAIN_ROPE)),
}


def make_model(name: str, seed: int = 0, dtype: torch.dtype = torch.float32) -> transformers.PreTrainedModel:
    """The case's model in evaluation mode, on the CPU, with eager attention: the same weights for the same seed."""
    model_type, changes = CASES[name]
    config = transformers.AutoConfig.for_model(model_type, **{**SIZES, **changes})
    config._attn_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(config).to(torch.float32).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter_name.endswith("norm.weight"):
                parameter.copy_(1.0 + 0.3 * noise)
            elif parameter.ndim == 1:
                parameter.copy_(0.1 * noise)
            else:
                parameter.copy_(noise * parameter.shape[-1] ** -0.5)
    return model.to(dtype)


def save_model(name: str, folder: str | Path, seed: int = 0, dtype: torch.dtype = torch.float32) -> Path:
    """Saves the case's model as a Hugging Face folder and gives its path."""
    path = Path(folder) / name
    make_model(name, seed, dtype).save_pretrained(path)
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
    """Loss and gradients by Hugging Face tensor name; a tied weight stands once, under its embedding's name."""
    model.zero_grad(set_to_none=True)
    loss = model(**batch).loss
    loss.backward()
    return float(loss.detach()), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
