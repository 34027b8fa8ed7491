"""mw.ops.rope against the rotary embeddings of transformers: YaRN, pairs of halves and of neighbours."""

from __future__ import annotations

import math

import meshwright as mw
import numpy as np
import pytest
import torch
from meshwright import ops
from transformers import DeepseekV3Config, GptOssConfig, Llama4TextConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.deepseek_v3 import modeling_deepseek_v3
from transformers.models.gpt_oss import modeling_gpt_oss
from transformers.models.llama4 import modeling_llama4

BATCH, SEQ, HEADS = 2, 7, 3
POSITIONS = np.array([[0, 1, 2, 5, 100, 4095, 130000], [7, 8, 9, 1000, 2000, 40000, 131071]])


def rotated(x: np.ndarray, **settings) -> np.ndarray:
    batch, seq, heads, head_dim = x.shape
    program = mw.trace(
        lambda x, p: ops.rope(x, p, **settings),
        x=mw.Spec("float32", batch=batch, seq=seq, heads=heads, head_dim=head_dim),
        p=mw.Spec("int32", batch=batch, seq=seq),
    )
    return np.asarray(program.run(x=x, p=POSITIONS))


def heads(head_dim: int) -> np.ndarray:
    return np.random.default_rng(head_dim).standard_normal((BATCH, SEQ, HEADS, head_dim)).astype(np.float32)


def assert_close(ours: np.ndarray, theirs: np.ndarray, frequency_error: float = 0.0) -> None:
    """frequency_error: of the fastest pairs that are not exact, in radians per position."""
    assert ours.shape == theirs.shape
    tolerance = 2e-6 + frequency_error * POSITIONS[:, :, None, None]
    assert (np.abs(ours - theirs) <= tolerance * np.abs(theirs).max()).all()


def test_gpt_oss() -> None:
    yarn = {"factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False}
    rope = {"rope_type": "yarn", "rope_theta": 150000.0, "original_max_position_embeddings": 4096, **yarn}
    config = GptOssConfig(head_dim=64, rope_parameters=rope)
    x = heads(64)
    q = torch.from_numpy(x).transpose(1, 2)
    cos, sin = modeling_gpt_oss.GptOssRotaryEmbedding(config)(q, torch.from_numpy(POSITIONS))
    expected = modeling_gpt_oss.apply_rotary_pos_emb(q, q, cos, sin)[0].transpose(1, 2).numpy()
    ours = rotated(x, theta=150000, scaling="yarn", original_positions=4096, attention_factor=0.1 * math.log(32) + 1, **yarn)
    # Two of torch's powers of 150000 are not the nearest floats: pair 6 turns by 0.107 per position.
    assert_close(ours, expected, frequency_error=0.107 * 2**-23)


def test_deepseek_v3() -> None:
    rope = {
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 40.0,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 4096,
    }
    config = DeepseekV3Config(rope_parameters=rope)
    x = heads(config.qk_rope_head_dim)
    q = torch.from_numpy(x).transpose(1, 2)
    cos, sin = modeling_deepseek_v3.DeepseekV3RotaryEmbedding(config)(q, torch.from_numpy(POSITIONS))
    # It returns the first elements of all pairs, then the second ones.
    parts = modeling_deepseek_v3.apply_rotary_pos_emb_interleave(q, q, cos, sin)[0].transpose(1, 2).numpy()
    expected = parts.reshape(BATCH, SEQ, HEADS, 2, -1).swapaxes(-1, -2).reshape(x.shape)
    assert_close(rotated(x, theta=10000, pairing="interleaved", scaling="yarn", factor=40, original_positions=4096), expected)


@pytest.mark.parametrize("high_freq_factor", [1.0, 4.0])  # Scout: 1, no range between the two
def test_llama4(high_freq_factor: float) -> None:
    rope = {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 16.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": high_freq_factor,
        "original_max_position_embeddings": 8192,
    }
    config = Llama4TextConfig(head_dim=128, hidden_size=512, num_attention_heads=4, rope_parameters=rope)
    x = heads(128)
    q = torch.from_numpy(x)
    turns = modeling_llama4.Llama4TextRotaryEmbedding(config)(q, torch.from_numpy(POSITIONS))
    expected = modeling_llama4.apply_rotary_emb(q, q, turns)[0].numpy()
    ours = rotated(x, theta=500000, pairing="interleaved", scaling="llama3", factor=16, high_freq_factor=high_freq_factor)
    assert_close(ours, expected)


@pytest.mark.parametrize("truncate", [True, False])
@pytest.mark.parametrize("factor, beta_fast, beta_slow", [(1.0, 32.0, 1.0), (4.0, 32.0, 1.0), (128.0, 6.0, 2.5)])
def test_yarn_frequencies(factor: float, beta_fast: float, beta_slow: float, truncate: bool) -> None:
    """(1, 0) turned by one position is the cosine and the sine of the frequency."""
    yarn = {"factor": factor, "beta_fast": beta_fast, "beta_slow": beta_slow, "truncate": truncate}
    rope = {"rope_type": "yarn", "rope_theta": 1e6, "original_max_position_embeddings": 2048, **yarn}
    frequencies, attention_factor = ROPE_INIT_FUNCTIONS["yarn"](GptOssConfig(head_dim=80, rope_parameters=rope), torch.device("cpu"))
    x = np.zeros((BATCH, SEQ, HEADS, 80), np.float32)
    x[..., :40] = 1
    turned = rotated(x, theta=1e6, scaling="yarn", original_positions=2048, attention_factor=attention_factor, **yarn)[0, 1, 0]
    angles = np.arctan2(turned[40:], turned[:40], dtype=np.float64)
    assert np.abs(angles / frequencies.numpy().astype(np.float64) - 1).max() <= 3e-7
    assert np.allclose(np.hypot(turned[40:], turned[:40]), attention_factor, rtol=1e-6)
