"""mw.trace, mw.immediate and mw.ops: results against NumPy, both kernels; gradients against finite differences; messages."""

import functools
import re
from pathlib import Path

import meshwright as mw
import numpy as np
import pytest
from meshwright import ops

RANDOM = np.random.default_rng(0)
KERNELS = ("cpu", "reference")


def numbers(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


def f32(**dims):
    return mw.Spec("float32", **dims)


def check(program, expected, tolerance=1e-5, **arrays):
    for kernels in KERNELS:
        found = program.run(kernels=kernels, **arrays)
        assert found.shape == np.shape(expected)
        assert np.abs(found - expected).max() <= tolerance * max(1.0, np.abs(expected).max()), kernels


def test_a_program_prints_runs_and_knows_its_lines():
    def block(x, w):
        with mw.scope("mlp"):
            return ops.silu(ops.dot(x, w, "embed")) * 2 + 1

    program = mw.trace(block, x=f32(batch=8, embed=64), w=f32(mlp=32, embed=64))
    assert "program block {" in str(program) and 'dot(%0, %1) {contract=["embed"]} : f32[batch=8, mlp=32] @ mlp' in str(program)
    assert "test_tracing.py" not in str(program)
    lines = re.findall(r"test_tracing\.py:(\d+)", program.to_text(sources=True))
    assert len(lines) == program.num_ops and set(lines) == {str(block.__code__.co_firstlineno + 2)}
    assert program.inputs == {"x": f32(batch=8, embed=64), "w": f32(mlp=32, embed=64)}
    assert program.outputs == {"result": f32(batch=8, mlp=32)}
    x, w = numbers(8, 64), numbers(32, 64)
    h = x @ w.T
    check(program, h / (1 + np.exp(-h)) * 2 + 1, x=x, w=w)
    assert program.run(x=x, w=w).dims == ("batch", "mlp")
    again = mw.Program.parse(str(program))
    assert str(again) == str(program) and again.hash == program.hash
    assert np.array_equal(again.run(x=x, w=w)["result"], program.run(x=x, w=w))


def test_traced_once_per_function_and_specs():
    calls = []

    def twice(x):
        calls.append(x)
        return x + x

    first = mw.trace(twice, x=f32(batch=2))
    assert mw.trace(twice, x=f32(batch=2)) is first and len(calls) == 1
    assert mw.trace(twice, x=f32(batch=3)) is not first and len(calls) == 2
    bound = functools.partial(twice)
    assert mw.trace(bound, x=f32(batch=2)).run(x=np.ones(2)).tolist() == [2, 2]


def test_operators_on_both_sides():
    def function(x, y):
        return (1 - x) * y / (2 / (y * y)) - -x + 3 + (x - 0.5) ** 2, (x < y), ops.select(x >= y, x, 2 * y), x == x

    program = mw.trace(function, x=f32(batch=5), y=f32(batch=5))
    x, y = numbers(5), numbers(5)
    for kernels in KERNELS:
        a, less, chosen, same = program.run(x=x, y=y, kernels=kernels)
        assert np.allclose(a, (1 - x) * y / (2 / (y * y)) + x + 3 + (x - 0.5) ** 2, atol=1e-4)
        assert np.array_equal(less, x < y) and np.allclose(chosen, np.where(x >= y, x, 2 * y)) and same.all() and same.dtype == np.uint8


UNARY = {
    "exp": np.exp,
    "log": lambda x: np.log(np.abs(x)),
    "sqrt": lambda x: np.sqrt(np.abs(x)),
    "rsqrt": lambda x: 1 / np.sqrt(np.abs(x)),
    "reciprocal": lambda x: 1 / np.abs(x),
    "square": np.square,
    "abs": np.abs,
    "floor": np.floor,
    "sin": np.sin,
    "cos": np.cos,
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "relu": lambda x: np.maximum(x, 0),
}


@pytest.mark.parametrize("name", UNARY)
def test_unary(name):
    positive = name in ("log", "sqrt", "rsqrt", "reciprocal")
    x = numbers(3, 40) + 3.0
    x = np.abs(x) if positive else x - 3
    program = mw.trace(lambda x: getattr(ops, name)(x), x=f32(batch=3, embed=40))
    check(program, UNARY[name](x), x=x)


def test_every_function_gives_what_numpy_gives():
    x, table, ids = numbers(2, 3, 4), numbers(10, 4), np.array([[1, 9, 0], [3, 3, 7]])

    def function(x, table, ids):
        picked = ops.gather_rows(table, ids, "vocab")
        top, where = ops.top_k(x, "embed", "top", 2)
        return {
            "sum": ops.reduce_sum(x, ["seq", "embed"]),
            "mean": ops.reduce_mean(x, "embed"),
            "max": ops.reduce_max(x, {"batch"}),
            "min": ops.reduce_min(x, "embed"),
            "argmax": ops.argmax(x, "embed"),
            "top": top,
            "where": where,
            "squares": ops.sum_of_squares([x, table]),
            "picked": picked,
            "scattered": ops.scatter_rows(picked, ids, "vocab", 10),
            "merged": ops.merge(x, ["seq", "embed"], "mlp"),
            "split": ops.split(ops.rename(x, "embed", "mlp"), "mlp", heads=2, head_dim=2),
            "reordered": ops.reorder(x, ["embed", "batch", "seq"]),
            "wide": ops.broadcast_to(ops.reduce_sum(x, "seq"), batch=2, seq=5, embed=4),
            "slice": ops.slice(x, "seq", 1, 2),
            "concat": ops.concat([x, x], "seq"),
            "pad": ops.pad(x, "seq", before=1, after=2),
            "iota": ops.iota("seq", 4) + 1,
            "cast": ops.cast(ops.cast(x, "bfloat16") * 2, "float32"),
            "clip": ops.minimum(ops.maximum(x, -0.5), 0.5),
            "gated": ops.gated_activation(x, x, "relu"),
            "gelu": ops.gelu(x, "tanh"),
            "clamped": ops.clamped_swiglu(x, x, limit=0.5),
            "constant": ops.constant(3, "int32", batch=2),
            "copy": ops.copy(x),
            "finite": ops.logical_and(ops.is_finite(x), ops.logical_not(ops.logical_or(x > 100, x < -100))),
        }

    picked = table[ids]
    scattered = np.zeros_like(table)
    np.add.at(scattered, ids, picked)
    order = np.argsort(-x, axis=2, kind="stable")[:, :, :2]
    bits = x.view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).view(np.float32)
    expected = {
        "sum": x.sum((1, 2)),
        "mean": x.mean(2),
        "max": x.max(0),
        "min": x.min(2),
        "argmax": x.argmax(2),
        "top": np.take_along_axis(x, order, 2),
        "where": order,
        "squares": (x**2).sum() + (table**2).sum(),
        "picked": picked,
        "scattered": scattered,
        "merged": x.reshape(2, 12),
        "split": x.reshape(2, 3, 2, 2),
        "reordered": x.transpose(2, 0, 1),
        "wide": np.repeat(x.sum(1)[:, None], 5, 1),
        "slice": x[:, 1:],
        "concat": np.concatenate([x, x], 1),
        "pad": np.pad(x, ((0, 0), (1, 2), (0, 0))),
        "iota": np.arange(1, 5),
        "cast": rounded * 2,
        "clip": x.clip(-0.5, 0.5),
        "gated": np.maximum(x, 0) * x,
        "gelu": 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
        "clamped": (x.clip(-0.5, 0.5) + 1) * x.clip(max=0.5) / (1 + np.exp(-1.702 * x.clip(max=0.5))),
        "constant": np.full(2, 3),
        "copy": x,
        "finite": np.ones((2, 3, 4)),
    }
    program = mw.trace(function, x=f32(batch=2, seq=3, embed=4), table=f32(vocab=10, embed=4), ids=mw.Spec("int32", batch=2, seq=3))
    for kernels in KERNELS:
        found = program.run(x=x, table=table, ids=ids, kernels=kernels)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert found[name].shape == value.shape and np.allclose(found[name], value, atol=1e-5), (kernels, name)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_parts_of_a_model():
    q, k, v = numbers(1, 6, 2, 3, 8), numbers(1, 6, 2, 8), numbers(1, 6, 2, 8)
    specs = dict(
        q=f32(batch=1, seq=6, kv_heads=2, q_per_kv=3, head_dim=8),
        k=f32(batch=1, kv_seq=6, kv_heads=2, head_dim=8),
        v=f32(batch=1, kv_seq=6, kv_heads=2, head_dim=8),
    )
    scores = np.einsum("bshqd,bthd->bshqt", q, k) / np.sqrt(8)
    mask = np.tril(np.ones((6, 6)))[None, :, None, None]
    expected = np.einsum("bshqt,bthd->bshqd", softmax(np.where(mask, scores, -1e30)), v)
    check(mw.trace(lambda q, k, v: ops.attention(q, k, v), **specs), expected, q=q, k=k, v=v)

    sinks = numbers(2, 3)
    capped = np.where(mask, 2 * np.tanh(scores / 2), -1e30)
    joined = np.concatenate([capped, np.broadcast_to(sinks[None, None, :, :, None], (1, 6, 2, 3, 1))], -1)
    expected = np.einsum("bshqt,bthd->bshqd", softmax(joined)[..., :-1], v)
    with_sinks = mw.trace(lambda q, k, v, s: ops.attention(q, k, v, softcap=2.0, sinks=s), **specs, s=f32(kv_heads=2, q_per_kv=3))
    check(with_sinks, expected, q=q, k=k, v=v, s=sinks)

    def chunked(q, k, v, segments, positions):
        chunks = ops.chunk_segments(segments, positions, 4)
        return ops.attention(q, k, v, chunks, ops.rename(chunks, "seq", "kv_seq"), chunk=4)

    places = np.arange(6)
    expected = np.einsum(
        "bshqt,bthd->bshqd", softmax(np.where(mask * (places[:, None] // 4 == places // 4)[None, :, None, None], scores, -1e30)), v
    )
    ints = mw.Spec("int32", batch=1, seq=6)
    check(
        mw.trace(chunked, **specs, segments=ints, positions=ints),
        expected,
        q=q,
        k=k,
        v=v,
        segments=np.ones((1, 6), int),
        positions=places[None],
    )

    x, w, b = numbers(2, 5, 8), numbers(8), numbers(8)
    norm = mw.trace(lambda x, w: ops.rms_norm(x, w, 1e-6), x=f32(batch=2, seq=5, embed=8), w=f32(embed=8))
    check(norm, x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * w, x=x, w=w)
    bare = mw.trace(lambda x: ops.rms_norm(x, "embed", 1e-6), x=f32(batch=2, seq=5, embed=8))
    check(bare, x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6), x=x)
    layer = mw.trace(lambda x, w, b: ops.layer_norm(x, w, b), x=f32(batch=2, seq=5, embed=8), w=f32(embed=8), b=f32(embed=8))
    check(layer, (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * w + b, x=x, w=w, b=b)

    positions = np.arange(5)[None].repeat(2, 0)
    angle = positions[..., None] / 10000.0 ** (np.arange(4) / 4)
    turned = np.concatenate(
        [x[..., :4] * np.cos(angle) - x[..., 4:] * np.sin(angle), x[..., 4:] * np.cos(angle) + x[..., :4] * np.sin(angle)], -1
    )
    program = mw.trace(lambda x, p: ops.rope(x, p), x=f32(batch=2, seq=5, head_dim=8), p=mw.Spec("int32", batch=2, seq=5))
    check(program, turned, x=x, p=positions)

    head, targets = numbers(11, 8), np.array([[1, 2, 3, 4, -1], [0, 10, 9, 8, 7]])
    nll = -np.log(np.take_along_axis(softmax(x @ head.T), np.maximum(targets, 0)[..., None], 2))[..., 0] * (targets >= 0)
    specs = dict(x=f32(batch=2, seq=5, embed=8), w=f32(vocab=11, embed=8), t=mw.Spec("int32", batch=2, seq=5))
    check(mw.trace(lambda x, w, t: ops.cross_entropy(x, w, t), **specs), nll, x=x, w=head, t=targets)
    capped = softmax(2 * np.tanh(x @ head.T / 2))
    nll = -np.log(np.take_along_axis(capped, np.maximum(targets, 0)[..., None], 2))[..., 0] * (targets >= 0)
    check(mw.trace(lambda x, w, t: ops.cross_entropy(x, w, t, softcap=2), **specs), nll, x=x, w=head, t=targets)


def test_random_numbers_and_updates():
    def function(seed, step, w, g, m, v, lr):
        one = ops.constant(1.0)
        new = ops.adamw(w, g, m, v, lr, one, one * 0.1, one * 0.05, weight_decay=0.01)
        return (
            ops.random_uniform("a", seed, step, batch=1000),
            ops.random_normal("b", seed, step, batch=1000),
            *new,
            *ops.sgd(w, g, m, lr, one),
        )

    scalar = mw.Spec("int32")
    size = f32(embed=6)
    program = mw.trace(function, seed=scalar, step=scalar, w=size, g=size, m=size, v=size, lr=f32())
    w, g, m, v = numbers(6), numbers(6), numbers(6), np.abs(numbers(6))
    for kernels in KERNELS:
        uniform, normal, new_w, new_m, new_v, sgd_w, sgd_b = program.run(seed=3, step=1, w=w, g=g, m=m, v=v, lr=0.1, kernels=kernels)
        assert 0 <= uniform.min() and uniform.max() < 1 and abs(uniform.mean() - 0.5) < 0.05 and abs(normal.std() - 1) < 0.1
        assert np.allclose(new_m, 0.9 * m + 0.1 * g, atol=1e-6) and np.allclose(new_v, 0.95 * v + 0.05 * g * g, atol=1e-6)
        step = (0.9 * m + 0.1 * g) / 0.1 / (np.sqrt((0.95 * v + 0.05 * g * g) / 0.05) + 1e-8)
        assert np.allclose(new_w, w * (1 - 0.1 * 0.01) - 0.1 * step, atol=1e-5)
        assert np.allclose(sgd_b, 0.9 * m + g, atol=1e-6) and np.allclose(sgd_w, w - 0.1 * (0.9 * m + g), atol=1e-6)


def test_caches_that_go_round_and_hold_latents():
    def function(cache, x, slots, positions, q):
        written = ops.cache_write(cache, x, slots, positions, ring=True)
        return ops.cached_attention(q, written, None, slots, positions, window=5, ring=True, value_prefix=6)

    row = mw.Spec("int32", batch=1, seq=100)
    program = mw.trace(
        function,
        cache=f32(slot=1, kv_seq=128, kv_heads=1, head_dim=8),
        x=f32(batch=1, seq=100, kv_heads=1, head_dim=8),
        slots=row,
        positions=row,
        q=f32(batch=1, seq=100, kv_heads=1, q_per_kv=2, head_dim=8),
    )
    cache, x, q = np.zeros((1, 128, 1, 8), np.float32), numbers(1, 100, 1, 8), numbers(1, 100, 1, 2, 8)
    positions = 90 + np.arange(100)[None]
    weights = softmax(np.einsum("qd,td->qt", q[0, 60, 0], x[0, 56:61, 0]) / np.sqrt(8))
    for kernels in KERNELS:
        out = program.run(cache=cache, x=x, slots=np.zeros((1, 100), int), positions=positions, q=q, kernels=kernels)
        assert out.shape == (1, 100, 1, 2, 6) and np.allclose(out[0, 60, 0], weights @ x[0, 56:61, 0, :6], atol=1e-5)


def test_caches():
    def function(cache, x, slots, positions, q):
        written = ops.cache_write(cache, x, slots, positions)
        return written, ops.cached_attention(q, written, written, slots, positions)

    specs = dict(
        cache=f32(slot=2, kv_seq=4, kv_heads=1, head_dim=8),
        x=f32(batch=1, seq=3, kv_heads=1, head_dim=8),
        slots=mw.Spec("int32", batch=1, seq=3),
        positions=mw.Spec("int32", batch=1, seq=3),
        q=f32(batch=1, seq=3, kv_heads=1, q_per_kv=2, head_dim=8),
    )
    cache, x, q = np.zeros((2, 4, 1, 8), np.float32), numbers(1, 3, 1, 8), numbers(1, 3, 1, 2, 8)
    slots, positions = np.array([[0, 0, 1]]), np.array([[0, 1, 0]])
    expected = cache.copy()
    expected[0, 0], expected[0, 1], expected[1, 0] = x[0, 0], x[0, 1], x[0, 2]
    weights = softmax(np.einsum("qd,td->qt", q[0, 1, 0], x[0, :2, 0]) / np.sqrt(8))
    for kernels in KERNELS:
        written, out = mw.trace(function, **specs).run(cache=cache, x=x, slots=slots, positions=positions, q=q, kernels=kernels)
        assert np.array_equal(written, expected)
        assert np.allclose(out[0, 1, 0], weights @ x[0, :2, 0], atol=1e-5) and np.allclose(out[0, 2, 0], x[0, 2], atol=1e-5)


def test_nested_specs_dicts_and_bfloat16():
    def layer(x, weights):
        h = ops.dot(x, weights["gate"], "embed")
        return {"h": h, "y": ops.dot(h, weights["down"], "mlp")}

    weights = {"gate": mw.Spec("bfloat16", mlp=8, embed=4), "down": mw.Spec("bfloat16", embed=4, mlp=8)}
    program = mw.trace(layer, x=mw.Spec("bfloat16", batch=2, embed=4), weights=weights)
    assert list(program.inputs) == ["x", "weights.gate", "weights.down"]
    x, gate, down = numbers(2, 4), numbers(8, 4), numbers(4, 8)
    for kernels in KERNELS:
        found = program.run(x=x, weights={"gate": gate, "down": down}, kernels=kernels)
        assert found["y"].dtype == np.float32 and np.abs(found["y"] - x @ gate.T @ down.T).max() < 0.05 * np.abs(found["y"]).max()


def test_gradients_are_those_of_finite_differences():
    def loss(x, w):
        return {"loss": ops.reduce_mean(ops.square(ops.tanh(ops.dot(x, w, "embed"))), ["batch", "mlp"])}

    program = mw.trace(loss, x=f32(batch=3, embed=4), w=f32(mlp=5, embed=4))
    x, w = numbers(3, 4).astype(np.float64), numbers(5, 4).astype(np.float64)
    gradient = program.gradient("loss", of=["w"])
    assert list(gradient.outputs) == ["loss", "gradient.w"]

    def value(w):
        return (np.tanh(x @ w.T) ** 2).mean()

    expected = np.zeros_like(w)
    for index in np.ndindex(w.shape):
        moved = w.copy()
        moved[index] += 1e-5
        expected[index] = (value(moved) - value(w)) / 1e-5
    for kernels in KERNELS:
        found = gradient.run(x=x, w=w, kernels=kernels)
        assert abs(found["loss"] - value(w)) < 1e-5 and np.allclose(found["gradient.w"], expected, atol=1e-4)
    assert {"gradient.x", "gradient.w"} < set(program.gradient().outputs)


def test_capture_and_check_finite():
    def function(x):
        with mw.scope("outer"):
            with mw.scope("inner"):
                y = ops.log(x)
        return y * 2

    program = mw.trace(function, x=f32(batch=3))
    x = np.array([1.0, 2.0, 4.0])
    for kernels in KERNELS:
        result, captured = program.run(x=x, capture=["outer.*"], kernels=kernels)
        assert np.allclose(captured["outer.inner"], np.log(x)) and np.allclose(result, 2 * np.log(x))
        with pytest.raises(mw.UserError, match=r"log at outer\.inner \(.*test_tracing\.py:\d+\).*(NaN|infinity)"):
            program.run(x=np.array([1.0, 0.0, 1.0]), check_finite=True, kernels=kernels)
        assert program.run(x=x, check_finite=True, kernels=kernels).shape == (3,)
    with pytest.raises(mw.UserError, match="'outer.innr' matches no scope.*did you mean 'outer.inner'"):
        program.run(x=x, capture=["outer.innr"])


def test_immediate_mode_has_numbers():
    def function(x):
        if ops.reduce_sum(x, "batch") > 0:
            return ops.exp(x)
        return -x

    with mw.immediate():
        x = mw.tensor(np.array([1.0, -3.0]), "batch")
        assert function(x).numpy().tolist() == [-1, 3] and x.dtype == "float32" and x.dims == {"batch": 2}
        assert float(ops.reduce_sum(x, "batch")) == -2 and int(mw.tensor(7)) == 7 and np.asarray(x * 2).tolist() == [2, -6]
        kept = x
    with pytest.raises(mw.UserError, match="used after its trace had ended"):
        kept.numpy()
    with mw.immediate(check_finite=True), pytest.raises(mw.UserError, match="log.*first op that makes a NaN or an infinity"):
        ops.log(mw.tensor([0.0], "batch"))
    with pytest.raises(mw.UserError, match=r"a value of a traced function was read at .*test_tracing\.py:\d+.*ops.select.*mw.immediate"):
        mw.trace(function, x=f32(batch=2))
    with pytest.raises(mw.UserError, match="a value of a traced function was read"):
        mw.trace(lambda x: x * float(x), x=f32(batch=1))


def test_dims_are_declared():
    with pytest.raises(mw.UserError, match="'embde' in .* is not declared.*did you mean 'embed'"):
        mw.trace(lambda x: x, x=f32(embde=4))
    with pytest.raises(mw.UserError, match=r"'mlq'.*did you mean 'mlp'"):
        mw.trace(lambda x: ops.rename(x, "embed", "mlq"), x=f32(embed=4))
    rows = mw.Dim("my_rows")
    assert mw.trace(lambda x: ops.reduce_sum(x, rows), x=f32(my_rows=3, embed=2)).run(x=np.ones((3, 2))).tolist() == [3, 3]
    late = mw.trace(lambda x: ops.rename(x, "embed", mw.Dim("late_rows")), x=f32(embed=4))
    assert late.outputs["result"].dims == {"late_rows": 4}
    assert mw.Program.parse(str(late)).run(x=np.ones(4))["result"].dims == ("late_rows",)


leaked = []


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: ops.dot(x, x, "mlp"), r"dot \(.*test_tracing\.py:\d+\): contracted dim 'mlp'"),
        (lambda x: x + "1", "expected a tensor and a tensor or number, found '1'"),
        (lambda x: ops.cast(x, "int32") * 0.5, "0.5 does not go with .*cast one of them"),
        (lambda x: ops.unary("exq", x), "did you mean 'exp'"),
        (lambda x: None, "returned None; expected a tensor"),
        (lambda x: {"y": 3}, "returned 3 as 'y'"),
        (lambda x: leaked[0] * x, "belongs to another trace"),
        (lambda x: list(x), "cannot be iterated over"),
        (lambda x: ops.gelu(x, "fast"), "approximate must be"),
        (lambda x: mw.tensor([1.0], "batch"), "with mw.immediate"),
    ],
)
def test_errors_while_tracing(function, message):
    with mw.immediate():
        leaked[:] = [mw.tensor([1.0], "batch")]
    with pytest.raises(mw.UserError, match="(?s)" + message):
        mw.trace(function, x=f32(batch=2, embed=4))


def test_errors_of_specs_and_runs():
    program = mw.trace(lambda x, ids: ops.gather_rows(x, ids, "vocab"), x=f32(vocab=8, embed=4), ids=mw.Spec("int32", seq=3))
    x, ids = np.zeros((8, 4)), np.zeros(3, np.int64)
    for arguments, message in [
        (dict(x=x), r"missing \['ids'\]"),
        (dict(x=x, ids=ids, y=x), r"unknown \['y'\]"),
        (dict(x=x.T, ids=ids), r"input 'x' has the shape \(4, 8\); expected float32\[vocab=8, embed=4\]"),
        (dict(x=x, ids=ids * 0.5), "input 'ids' holds float64; expected int32"),
        (dict(x=x, ids=ids, kernels="gpu"), "kernels must be 'cpu' or 'reference'"),
    ]:
        with pytest.raises(mw.UserError, match=message):
            program.run(**arguments)
    for make, message in [
        (lambda: mw.Spec("float33", batch=2), "there is no dtype 'float33'"),
        (lambda: mw.Spec("float32", batch=0), "at least 1, found 0"),
        (lambda: mw.Dim("a b"), "letters, digits"),
        (lambda: mw.trace(lambda x: x, x=3), "must be an mw.Spec"),
        (lambda: ops.iota("seq", 3), "outside a traced function"),
        (lambda: program.gradient(), "float32|f32"),
        (lambda: program.gradient(of=["ids"]), "'ids' is no float input"),
    ]:
        with pytest.raises(mw.UserError, match=message):
            make()


def test_every_op_can_be_called():
    page = (Path(__file__).resolve().parents[2] / "docs" / "ops.md").read_text()
    made_by_passes = re.compile(
        r"all_|reduce_scatter|shard_|ring_shift|to_host|from_host|elementwise_chain|rope_angles|expert_(counts|dispatch|return)$|dispatched_experts|.*_gradients?$"
    )
    operators = {"neg", "add", "sub", "mul", "div", "pow", "eq", "ne", "lt", "le", "gt", "ge"}
    other_names = {"max": "maximum", "min": "minimum", "gelu_tanh": "gelu", "gelu_erf": "gelu"}
    rows = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert len(rows) > 60
    assert not [op for op in rows if not made_by_passes.match(op) and op not in operators and not hasattr(ops, other_names.get(op, op))]
