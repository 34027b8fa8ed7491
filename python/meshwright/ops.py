"""The op functions, for Python code that `mw.trace` or `mw.immediate` runs. Dims are named; docs/ops.md has the formulas.

Shapes below are named dims: x[batch, seq, embed]. Every function raises UserError, with scope and line, when dims or dtypes do not fit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from meshwright import _core
from meshwright._core import UserError
from meshwright.tracing import Number, Tensor, TraceState, caller, current_trace

Names = str | Iterable[str]


def _names(names: Names) -> list[str]:
    return [str(names)] if isinstance(names, str) else sorted(names) if isinstance(names, (set, frozenset)) else [str(n) for n in names]


def _state_of(values: Iterable[Any], op: str) -> TraceState:
    state = current_trace(f"ops.{op}")
    for value in values:
        for part in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(part, Tensor) and part._trace is not state:
                raise UserError(f"ops.{op} at {caller()}: a tensor belongs to another trace, or to one that has ended")
    state.declare_new_dims()
    state.core.at(caller())
    return state


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value._id
    return [_plain(part) for part in value] if isinstance(value, (list, tuple)) else value


def _call(op: str, *arguments: Any) -> Any:
    state = _state_of(arguments, op)
    found = getattr(_core.TraceOps, op)(state.core, *(_plain(argument) for argument in arguments))
    return tuple(Tensor(state, value) for value in found) if isinstance(found, (tuple, list)) else Tensor(state, found)


def _one(op: str, *arguments: Any) -> Tensor:
    value: Tensor = _call(op, *arguments)
    return value


def _pairs(sizes: dict[str, int]) -> list[tuple[str, int]]:
    return list(sizes.items())


# ---- elementwise ----


def unary(op: str, x: Tensor) -> Tensor:
    """neg, exp, log, sqrt, rsqrt, reciprocal, square, abs, floor, sin, cos, tanh, sigmoid, silu, relu, gelu_tanh, gelu_erf, erf,
    is_finite, logical_not; an unknown name is an error with the nearest."""
    return _one("unary", op, x)


def binary(op: str, a: Tensor | Number, b: Tensor | Number) -> Tensor:
    """add, sub, mul, div, max, min, pow, eq, ne, lt, le, gt, ge (uint8), logical_and, logical_or; a number takes the other's kind."""
    return _one("binary", op, _operand(a, b), _operand(b, a))


def _operand(value: Any, other: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not isinstance(other, Tensor):
        raise UserError(f"operands at {caller()}: expected a tensor and a tensor or number, found {value!r} with {other!r}")
    whole = "int" in other.dtype
    if whole and not isinstance(value, int):
        raise UserError(f"operands at {caller()}: {value!r} does not go with {other!r}; cast one of them")
    return constant(float(value), dtype=other.dtype if whole else "float32")


def exp(x: Tensor) -> Tensor:
    return unary("exp", x)


def log(x: Tensor) -> Tensor:
    return unary("log", x)


def sqrt(x: Tensor) -> Tensor:
    return unary("sqrt", x)


def rsqrt(x: Tensor) -> Tensor:
    """1 / sqrt(x)"""
    return unary("rsqrt", x)


def reciprocal(x: Tensor) -> Tensor:
    return unary("reciprocal", x)


def square(x: Tensor) -> Tensor:
    return unary("square", x)


def abs(x: Tensor) -> Tensor:
    return unary("abs", x)


def floor(x: Tensor) -> Tensor:
    """The largest whole number that is at most x; its gradient is 0."""
    return unary("floor", x)


def sin(x: Tensor) -> Tensor:
    return unary("sin", x)


def cos(x: Tensor) -> Tensor:
    return unary("cos", x)


def tanh(x: Tensor) -> Tensor:
    return unary("tanh", x)


def sigmoid(x: Tensor) -> Tensor:
    return unary("sigmoid", x)


def silu(x: Tensor) -> Tensor:
    return unary("silu", x)


def relu(x: Tensor) -> Tensor:
    return unary("relu", x)


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """approximate: "none" (by erf) or "tanh", as torch has it."""
    if approximate not in ("none", "tanh"):
        raise UserError(f"gelu: approximate must be 'none' or 'tanh', found {approximate!r}")
    return unary("gelu_tanh" if approximate == "tanh" else "gelu_erf", x)


def erf(x: Tensor) -> Tensor:
    return unary("erf", x)


def is_finite(x: Tensor) -> Tensor:
    return unary("is_finite", x)


def logical_not(x: Tensor) -> Tensor:
    return unary("logical_not", x)


def logical_and(a: Tensor, b: Tensor) -> Tensor:
    return binary("logical_and", a, b)


def logical_or(a: Tensor, b: Tensor) -> Tensor:
    return binary("logical_or", a, b)


def maximum(a: Tensor | Number, b: Tensor | Number) -> Tensor:
    return binary("max", a, b)


def minimum(a: Tensor | Number, b: Tensor | Number) -> Tensor:
    return binary("min", a, b)


def constant(value: Number, dtype: str = "float32", **dims: int) -> Tensor:
    """One number at every index; without dims a float32 scalar, which goes with any float dtype."""
    return _one("constant", float(value), dtype, _pairs(dims))


def select(condition: Tensor, if_true: Tensor, if_false: Tensor) -> Tensor:
    """if_true where the uint8 condition is not 0, else if_false."""
    return _one("select", condition, if_true, if_false)


def cast(x: Tensor, dtype: str) -> Tensor:
    return _one("cast", x, dtype)


def gated_activation(gate: Tensor, up: Tensor, kind: str = "silu") -> Tensor:
    """act(gate) * up; kind: silu, gelu_tanh, gelu_erf, relu."""
    return _one("gated_activation", gate, up, kind)


def clamped_swiglu(gate: Tensor, up: Tensor, limit: float = 7.0, alpha: float = 1.702) -> Tensor:
    """(clip(up, -limit, limit) + 1) g sigmoid(alpha g) with g = minimum(gate, limit), as in GPT-OSS."""
    return _one("clamped_swiglu", gate, up, float(limit), float(alpha))


# ---- sums ----


def dot(a: Tensor, b: Tensor, contract: Names, dtype: str | None = None) -> Tensor:
    """Sum over the dims in `contract` of a * b: dims of a, then those of b that a lacks; a dim in both that is kept is a batch dim."""
    return _one("dot", a, b, _names(contract), dtype)


def reduce_sum(x: Tensor, dims: Names) -> Tensor:
    return _one("reduce_sum", x, _names(dims))


def reduce_mean(x: Tensor, dims: Names) -> Tensor:
    return _one("reduce_mean", x, _names(dims))


def reduce_max(x: Tensor, dims: Names) -> Tensor:
    return _one("reduce_max", x, _names(dims))


def reduce_min(x: Tensor, dims: Names) -> Tensor:
    return _one("reduce_min", x, _names(dims))


def argmax(x: Tensor, dim: str) -> Tensor:
    """int32; the lowest index at a tie."""
    return _one("argmax", x, dim)


def top_k(x: Tensor, dim: str, into: str, k: int) -> tuple[Tensor, Tensor]:
    """The k largest along `dim`, sorted, and their int32 indices, with `into` in the place of `dim`."""
    values, indices = _call("top_k", x, dim, into, k)
    return values, indices


def sum_of_squares(values: Sequence[Tensor]) -> Tensor:
    """Sum of the squares of all elements of all values, float32 scalar."""
    return _one("sum_of_squares", list(values))


# ---- dims and memory ----


def rename(x: Tensor, old: str, new: str) -> Tensor:
    return _one("rename", x, old, new)


def split(x: Tensor, dim: str, **into: int) -> Tensor:
    """One dim into several, outermost first: `split(x, "embed", heads=4, head_dim=16)`."""
    return _one("split", x, dim, _pairs(into))


def merge(x: Tensor, dims: Sequence[str], into: str) -> Tensor:
    """Neighbouring dims, outermost first, into one."""
    return _one("merge", x, _names(dims), into)


def reorder(x: Tensor, order: Sequence[str]) -> Tensor:
    """The same values in another memory order."""
    return _one("reorder", x, _names(order))


def copy(x: Tensor) -> Tensor:
    return _one("copy", x)


def broadcast_to(x: Tensor, **dims: int) -> Tensor:
    """x repeated along the dims that it lacks; `dims` is the whole result, in memory order."""
    return _one("broadcast_to", x, _pairs(dims))


def slice(x: Tensor, dim: str, start: int, size: int) -> Tensor:
    return _one("slice", x, dim, start, size)


def concat(parts: Sequence[Tensor], dim: str) -> Tensor:
    return _one("concat", list(parts), dim)


def pad(x: Tensor, dim: str, before: int = 0, after: int = 0) -> Tensor:
    """Zeros before and after along one dim."""
    return _one("pad", x, dim, before, after)


def iota(dim: str, size: int) -> Tensor:
    """0, 1, 2, ... as int32."""
    return _one("iota", dim, size)


def gather_rows(table: Tensor, ids: Tensor, dim: str) -> Tensor:
    """table[ids] along `dim`; an id outside gives zeros."""
    return _one("gather_rows", table, ids, dim)


def scatter_rows(x: Tensor, ids: Tensor, dim: str, rows: int) -> Tensor:
    """A table of `rows` zeros along `dim`, to which each row of x is added at its id."""
    return _one("scatter_rows", x, ids, dim, rows)


# ---- parts of a model ----


def rms_norm(x: Tensor, weight: Tensor | str, eps: float = 1e-5, offset_one: bool = False) -> Tensor:
    """weight * x / sqrt(mean(x^2) + eps) over the weight's one dim (arXiv:1910.07467); offset_one: (1 + weight). The name of a dim in
    place of the weight: x / sqrt(mean(x^2) + eps) over that dim."""
    if isinstance(weight, str):
        if offset_one:
            raise UserError("rms_norm: offset_one adds 1 to a weight; found the name of a dim in its place")
        return _one("rms_norm_of_dim", x, weight, float(eps))
    return _one("rms_norm", x, weight, float(eps), offset_one)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """(x - mean) / sqrt(variance + eps) * weight + bias over the weight's one dim (arXiv:1607.06450)."""
    return _one("layer_norm", x, weight, bias, float(eps))


def rope(
    x: Tensor,
    positions: Tensor,
    theta: float = 10000.0,
    pairing: str = "half",
    scaling: str = "none",
    factor: float = 1.0,
    low_freq_factor: float = 1.0,
    high_freq_factor: float = 4.0,
    original_positions: int = 8192,
    beta_fast: float = 32.0,
    beta_slow: float = 1.0,
    truncate: bool = True,
    attention_factor: float = 1.0,
) -> Tensor:
    """Rotates pairs along x's innermost dim by positions * frequency (arXiv:2104.09864). pairing: "half" or "interleaved";
    scaling: "none", "linear", "llama3" or "yarn" (arXiv:2309.00071); attention_factor multiplies cosine and sine."""
    settings = {
        "theta": theta,
        "pairing": pairing,
        "scaling": scaling,
        "factor": factor,
        "low_freq_factor": low_freq_factor,
        "high_freq_factor": high_freq_factor,
        "original_positions": original_positions,
        "beta_fast": beta_fast,
        "beta_slow": beta_slow,
        "truncate": truncate,
        "attention_factor": attention_factor,
    }
    return _one("rope", x, positions, settings)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    segment_ids: Tensor | None = None,
    kv_segment_ids: Tensor | None = None,
    scale: float | None = None,
    causal: bool = True,
    window: int = 0,
    softcap: float = 0.0,
    sinks: Tensor | None = None,
    chunk: int = 0,
) -> Tensor:
    """Softmax attention (arXiv:2205.14135): q[batch, seq, kv_heads, q_per_kv, head_dim], k and v[batch, kv_seq, kv_heads, head_dim].

    segment_ids int32[batch, seq] and kv_segment_ids[batch, kv_seq]: a query sees keys of its own segment only. scale: by default
    1 / sqrt(head_dim). window > 0: only the last `window` keys. softcap > 0: scores are softcap * tanh(score / softcap) (Gemma 2).
    sinks[kv_heads, q_per_kv]: one more logit per query head in the softmax's sum (GPT-OSS). chunk: for the count of FLOPs; the mask of
    chunked attention comes from segment ids made by chunk_segments."""
    factor = q.size("head_dim") ** -0.5 if scale is None else float(scale)
    return _one("attention", q, k, v, segment_ids, kv_segment_ids, factor, causal, window, softcap, sinks, chunk)


def chunk_segments(segment_ids: Tensor, positions: Tensor, chunk: int) -> Tensor:
    """Segment ids int32[batch, seq] by which attention is chunked (Llama 4): of each token the index of the first one with the same
    (segment id, position // chunk)."""
    return _one("chunk_segments", segment_ids, positions, chunk)


def cache_write(cache: Tensor, x: Tensor, slots: Tensor, positions: Tensor, ring: bool = False) -> Tensor:
    """Rows x[batch, seq, kv_heads, head_dim] into cache[slot, kv_seq, kv_heads, head_dim] at (slots, positions).

    ring: at positions % kv_seq, where kv_seq is a multiple of 128."""
    return _one("cache_write", cache, x, slots, positions, ring)


def cached_attention(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor | None,
    slots: Tensor,
    positions: Tensor,
    scale: float | None = None,
    window: int = 0,
    softcap: float = 0.0,
    sinks: Tensor | None = None,
    chunk: int = 0,
    ring: bool = False,
    value_prefix: int = 0,
) -> Tensor:
    """Attention of packed tokens to the caches of their slots, up to their own positions: the last `window` of them, or those of their
    own `chunk`.

    ring: the caches were written with ring=True and hold the window or chunk and the tokens of one step. value_prefix, with v_cache=None:
    values are the first elements of each key. softcap, sinks: as in attention."""
    factor = q.size("head_dim") ** -0.5 if scale is None else float(scale)
    return _one("cached_attention", q, k_cache, v_cache, slots, positions, factor, window, softcap, sinks, chunk, ring, value_prefix)


def cross_entropy(x: Tensor, weight: Tensor, targets: Tensor, softcap: float = 0.0) -> Tensor:
    """-log softmax(x weight^T)[target] per token, float32, 0 where the target is negative: x[.., embed], weight[vocab, embed],
    targets int32[..]. tokens x vocab is never held. softcap > 0 (Gemma 2): logits are softcap * tanh(x weight^T / softcap)."""
    return _one("cross_entropy", x, weight, targets, float(softcap))


# ---- mixtures of experts: indices int32[TOKENS.., top_k] hold each token's experts; expert_rows counts TOKENS times top_k ----


def route(
    logits: Tensor,
    k: int,
    score: str = "softmax",
    selection_bias: Tensor | None = None,
    groups: int = 1,
    groups_selected: int = 1,
    group_score: str = "max",
    normalize: bool = False,
    scaling: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Of float32 logits[.., experts] each token's k best experts: float32 weights[.., top_k] and int32 indices[.., top_k].

    score: "softmax", "sigmoid" or "softmax_of_top_k"; selection_bias float32[experts] is added for the choice alone. Only experts of
    the best groups_selected of `groups` are chosen, by group_score "max" or "top2_sum". normalize: divided by the sum."""
    settings = (score, k, groups, groups_selected, group_score, normalize, float(scaling))
    weights, indices = _call("route", logits, selection_bias, *settings)
    return weights, indices


def within_capacity(indices: Tensor, experts: int, capacity: int) -> Tensor:
    """1.0 for the first `capacity` choices of each expert in the order of the tokens, 0.0 for those beyond."""
    return _one("within_capacity", indices, experts, capacity)


def to_expert_rows(x: Tensor, indices: Tensor, experts: int, weights: Tensor | None = None) -> Tensor:
    """x[TOKENS.., OTHERS..] -> [expert_rows, OTHERS..], sorted by expert: each token (times its weight) once per choice. Of
    x[TOKENS.., top_k, OTHERS..] each choice its own."""
    return _one("to_expert_rows", x, indices, experts, weights)


def from_expert_rows(rows: Tensor, indices: Tensor, experts: int) -> Tensor:
    """rows[expert_rows, OTHERS..] -> [TOKENS.., top_k, OTHERS..]"""
    return _one("from_expert_rows", rows, indices, experts)


def expert_of_rows(indices: Tensor, experts: int) -> Tensor:
    """int32[expert_rows], ascending."""
    return _one("expert_of_rows", indices, experts)


def combine(rows: Tensor, indices: Tensor, experts: int, weights: Tensor | None = None) -> Tensor:
    """Each token's rows (times float32 weights[TOKENS.., top_k]) added up: [expert_rows, OTHERS..] -> [TOKENS.., OTHERS..]."""
    return _one("combine", rows, indices, experts, weights)


def expert_row_products(rows: Tensor, x: Tensor, indices: Tensor, experts: int) -> Tensor:
    """float32[TOKENS.., top_k]: of each choice the inner product of its row and its token in x."""
    return _one("expert_row_products", rows, x, indices, experts)


def grouped_dot(x: Tensor, w: Tensor, row_experts: Tensor, contract: Names) -> Tensor:
    """x[expert_rows, ..] times w[experts, ..] of each row's expert, summed over `contract`, which are all dims of x but the first."""
    return _one("grouped_dot", x, w, row_experts, _names(contract))


def grouped_dot_weights(x: Tensor, dy: Tensor, row_experts: Tensor, dtype: str = "float32", **dims: int) -> Tensor:
    """Of each expert the sum of x[r] dy[r] over its rows, with `dims` in memory order: `experts` and those of x and dy."""
    return _one("grouped_dot_weights", x, dy, row_experts, dtype, _pairs(dims))


# ---- random numbers, optimizer updates ----


def random_uniform(name: str, seed: Tensor, step: Tensor, **dims: int) -> Tensor:
    """float32 in [0, 1), by Philox with the key (seed, step, name) and the element's index; seed, step: int32 scalars."""
    return _one("random_uniform", _pairs(dims), seed, step, name)


def random_normal(name: str, seed: Tensor, step: Tensor, **dims: int) -> Tensor:
    """Standard normal float32; else as random_uniform."""
    return _one("random_normal", _pairs(dims), seed, step, name)


def adamw(
    weight: Tensor,
    gradient: Tensor,
    first_moment: Tensor,
    second_moment: Tensor,
    lr: Tensor,
    gradient_scale: Tensor,
    correction1: Tensor,
    correction2: Tensor,
    beta1: float = 0.9,
    beta2: float = 0.95,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """One AdamW update (arXiv:1711.05101): weight and moments after it. correctionN = 1 - betaN^step."""
    scalars = (lr, gradient_scale, correction1, correction2)
    w, m, v = _call("adamw", weight, gradient, first_moment, second_moment, *scalars, beta1, beta2, eps, weight_decay)
    return w, m, v


def sgd(
    weight: Tensor,
    gradient: Tensor,
    momentum_buffer: Tensor,
    lr: Tensor,
    gradient_scale: Tensor,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """One SGD update as torch.optim.SGD makes it: weight and momentum buffer after it."""
    w, b = _call("sgd", weight, gradient, momentum_buffer, lr, gradient_scale, momentum, weight_decay)
    return w, b
