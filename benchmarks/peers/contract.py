"""What all contestants agree on: optimizer, batch, and which tensors decay. NumPy alone, so that every environment can read it."""

from __future__ import annotations

from typing import Any

ADAMW: dict[str, Any] = {"lr": 1e-3, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}
CLIP = 1.0
"""Largest global norm of the gradient."""


def decays(name: str, num_dims: int) -> bool:
    """Whether a tensor with this Hugging Face name decays: matrices do, the embedding does not."""
    return num_dims >= 2 and "embed_tokens" not in name


def token_ids(vocab_size: int, batch: int, seq: int) -> Any:
    """The batch of every step: [batch, seq], int64. The losses fall, as it is learnt by heart."""
    import numpy as np

    return np.random.default_rng(0).integers(0, vocab_size, (batch, seq))
