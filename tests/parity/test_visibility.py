"""Which tokens each kind of attention sees: changing a token outside the visible set changes nothing, bit by bit; inside it something."""

from __future__ import annotations

from typing import Any

import meshwright as mw
import numpy as np
import pytest

SEQ, VOCAB, WINDOW, CHUNK = 24, 64, 7, 8
SIZES: dict[str, Any] = dict(
    embedding_dim=32, mlp_dim=48, num_layers=1, num_query_heads=4, num_kv_heads=2, head_dim=8, vocab_size=VOCAB, max_position_embeddings=64
)
SLIDING = dict(layer_kinds=["sliding"], sliding_window=WINDOW)
MOE = dict(num_experts=4, experts_per_token=2)
MLA = dict(kv_lora_rank=12, qk_nope_head_dim=6, qk_rope_head_dim=4, v_head_dim=8, q_lora_rank=10)
LLAMA4 = dict(family="llama4", moe_mlp_dim=16, moe=dict(num_experts=4, experts_per_token=1, num_shared_experts=1, shared_expert_mlp_dim=16))
LLAMA4 |= dict(rope=dict(pair_layout_in_hf_weights="interleaved"))
LLAMA4["moe"] |= dict(routing_score="sigmoid", weight_applied_to="expert input")
BIASED = dict(bias=dict(qkv=True, attention_output=True, mlp=True))


def causal(i: int, j: int) -> bool:
    return j <= i


def in_window(i: int, j: int) -> bool:
    return i - WINDOW < j <= i


def in_chunk(i: int, j: int) -> bool:
    return j <= i and i // CHUNK == j // CHUNK


CASES: dict[str, tuple[dict[str, Any], Any]] = {
    "global": (dict(family="llama"), causal),
    "multi-query": (dict(family="llama", num_kv_heads=1), causal),
    "sliding": (dict(family="mistral", attention_pattern=SLIDING), in_window),
    "softcap and window": (
        dict(family="gemma2", attention_logit_softcap=5.0, final_logit_softcap=3.0, attention_pattern=SLIDING),
        in_window,
    ),
    "softcap": (dict(family="gemma2", attention_logit_softcap=5.0), causal),
    "sinks and window": (
        dict(
            family="gpt_oss",
            moe_mlp_dim=48,
            activation="clamped_swiglu",
            moe=MOE | dict(routing_score="softmax_of_top_k"),
            attention_pattern=SLIDING,
            **BIASED,
        ),
        in_window,
    ),
    "chunked": (LLAMA4 | dict(attention_pattern=dict(layer_kinds=["chunked"], chunk_size=CHUNK)), in_chunk),
    "without positions": (LLAMA4 | dict(attention_pattern=dict(layer_kinds=["global_without_rope"])), causal),
    "latent": (
        dict(
            family="deepseek2",
            num_kv_heads=4,
            head_dim=10,
            moe_mlp_dim=16,
            mla=MLA,
            moe=MOE | dict(first_dense_layers=1, num_shared_experts=1, shared_expert_mlp_dim=16),
            rope=dict(pair_layout_in_hf_weights="interleaved"),
        ),
        causal,
    ),
    "fused": (dict(family="gpt3", num_kv_heads=4, activation="gelu_tanh", tie_embeddings=True, **BIASED), causal),
}


@pytest.fixture(scope="module", params=sorted(CASES))
def case(request):
    fields, visible = CASES[request.param]
    return mw.Model({**SIZES, **fields}, seed=5), visible


def changed_rows(model: mw.Model, ids: np.ndarray, at: int, **fields: Any) -> np.ndarray:
    other = ids.copy()
    other[0, at] = (other[0, at] + 7) % VOCAB
    return np.any(model(ids, **fields) != model(other, **fields), axis=-1)[0]


@pytest.mark.parametrize("at", [0, 5, 8, 15, 23])
def test_a_token_is_seen_where_it_should_be(case, at) -> None:
    model, visible = case
    ids = np.random.default_rng(at).integers(0, VOCAB, (1, SEQ))
    assert changed_rows(model, ids, at).tolist() == [visible(i, at) for i in range(SEQ)]


@pytest.mark.parametrize("at", [3, 13])
def test_nothing_is_seen_across_segments(case, at) -> None:
    model, visible = case
    ids = np.random.default_rng(at).integers(0, VOCAB, (1, SEQ))
    starts = np.array([0] * 11 + [11] * 13)
    expected = [starts[i] == starts[at] and visible(i - starts[i], at - starts[at]) for i in range(SEQ)]
    assert changed_rows(model, ids, at, segment_ids=(starts[None] > 0).astype(np.int64)).tolist() == expected


@pytest.mark.parametrize("at", [0, 9, 12])
def test_the_cache_sees_the_same(case, at) -> None:
    """What is generated behind a prompt depends on a token of the prompt only where a whole pass would."""
    model, visible = case
    prompt = np.random.default_rng(at).integers(0, VOCAB, SEQ - 1).tolist()
    other = list(prompt)
    other[at] = (other[at] + 7) % VOCAB
    first, second = (
        mw.Generator(model).generate([p], max_new_tokens=1, eos_token_id=None, return_details=True)[0].logprobs for p in (prompt, other)
    )
    assert (first != second) == visible(SEQ - 2, at)
