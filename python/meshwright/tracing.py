"""Tracing Python functions to Programs: Spec, Dim, Tensor, scope, trace, immediate mode. The op functions are in `meshwright.ops`.

def block(x, w):
    with mw.scope("mlp"):
        return ops.silu(ops.dot(x, w, "embed"))

program = mw.trace(block, x=mw.Spec("float32", batch=8, embed=64), w=mw.Spec("float32", mlp=32, embed=64))
print(program)
y = program.run(x=x, w=w)
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from meshwright import _core
from meshwright._core import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from meshwright.program import Program

Number = int | float

_LONG_NAMES = {
    "f32": "float32",
    "bf16": "bfloat16",
    "f16": "float16",
    "f64": "float64",
    "i32": "int32",
    "u8": "uint8",
    "i8": "int8",
    "bool": "uint8",
}
_DTYPES = set(_LONG_NAMES.values())


def long_dtype(name: str) -> str:
    """ "f32" -> "float32"; UserError for a dtype that does not exist."""
    long = _LONG_NAMES.get(name, name)
    if long not in _DTYPES:
        raise UserError(f"there is no dtype {name!r}; expected one of {', '.join(sorted(_DTYPES))}")
    return long


class Dim(str):
    """Declares a dim name of one's own, beside the standard ones: `ROWS = mw.Dim("rows")`; then `mw.Spec("float32", rows=4)`."""

    declared: set[str] = set()

    def __new__(cls, name: str) -> Dim:
        if not name.isidentifier():
            raise UserError(f"a dim's name is made of letters, digits and _, found {name!r}")
        cls.declared.add(name)
        return super().__new__(cls, name)


class Spec:
    """Type of a tensor: dtype and named sizes in memory order, outermost first: `Spec("bfloat16", batch=8, seq=256, embed=768)`."""

    __slots__ = ("dims", "dtype")

    def __init__(self, dtype: str = "float32", /, **dims: int) -> None:
        for name, size in dims.items():
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise UserError(f"Spec: the size of {name!r} must be a whole number of at least 1, found {size!r}")
        self.dtype = long_dtype(dtype)
        self.dims: dict[str, int] = dims

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.dims.values())

    def key(self) -> tuple[Any, ...]:
        return (self.dtype, *self.dims.items())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spec) and self.key() == other.key()

    def __hash__(self) -> int:
        return hash(self.key())

    def __repr__(self) -> str:
        return f"{self.dtype}[{', '.join(f'{name}={size}' for name, size in self.dims.items())}]"


class TraceState:
    """One trace while it is open."""

    def __init__(self, name: str, immediate: bool, check_finite: bool = False) -> None:
        self.core = _core.Trace(name, immediate, check_finite, sorted(Dim.declared))
        self.immediate = immediate
        self.open = True
        self.num_given = 0
        self._declared = set(Dim.declared)

    def declare_new_dims(self) -> None:
        """Dims that were declared after the trace began."""
        for name in Dim.declared - self._declared:
            self.core.declare(name)
            self._declared.add(name)


class _Active(threading.local):
    def __init__(self) -> None:
        self.stack: list[TraceState] = []


_active = _Active()


def current_trace(what: str) -> TraceState:
    if not _active.stack:
        raise UserError(f"{what} outside a traced function: call it in one (mw.trace) or in `with mw.immediate():`")
    return _active.stack[-1]


@contextmanager
def _activated(state: TraceState) -> Iterator[TraceState]:
    _active.stack.append(state)
    try:
        yield state
    finally:
        _active.stack.pop()
        state.open = False


class Tensor:
    """A value of a traced function: dtype and named dims; its numbers are known when the program runs (or in immediate mode).

    + - * / ** and comparisons take tensors and numbers; dims are matched by name, a tensor that lacks a dim is the same all along it.
    """

    __slots__ = ("_id", "_trace")
    __array_priority__ = 1000  # NumPy hands its operators to ours

    def __init__(self, state: TraceState, value: int) -> None:
        self._trace, self._id = state, value

    def _type(self) -> tuple[str, list[tuple[str, int]]]:
        if not self._trace.open:
            raise UserError("a tensor was used after its trace had ended: return it from the traced function instead of keeping it")
        found: tuple[str, list[tuple[str, int]]] = self._trace.core.type(self._id)
        return found

    @property
    def dtype(self) -> str:
        return long_dtype(self._type()[0])

    @property
    def dims(self) -> dict[str, int]:
        """Sizes by name, in memory order."""
        return dict(self._type()[1])

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.dims.values())

    def size(self, dim: str) -> int:
        if dim not in self.dims:
            raise UserError(f"there is no dim {dim!r} in {self!r}")
        return self.dims[dim]

    # ---- numbers: immediate mode only ----

    def numpy(self) -> NDArray[np.float64]:
        """The numbers as float64. UserError in a traced function, where they are not known yet."""
        self._type()
        if not self._trace.immediate:
            raise UserError(
                f"a value of a traced function was read at {caller()}: {self!r} has no numbers until the program runs. Use ops.select for "
                "`if`, return the value, capture its scope, or run the function in `with mw.immediate():`"
            )
        values: NDArray[np.float64] = self._trace.core.value(self._id)
        return values

    def item(self) -> float:
        return float(self.numpy().item())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        values = self.numpy()
        return values if dtype is None else values.astype(dtype)

    def __bool__(self) -> bool:
        return bool(self.numpy())

    def __float__(self) -> float:
        return self.item()

    def __int__(self) -> int:
        return int(self.item())

    __index__ = __int__

    def __iter__(self) -> Iterator[Any]:
        raise UserError(f"{self!r} cannot be iterated over; take parts of it with ops.slice")

    # ---- operators ----

    def _binary(self, op: str, other: Tensor | Number, swapped: bool = False) -> Tensor:
        from meshwright import ops

        return ops.binary(op, other, self) if swapped else ops.binary(op, self, other)

    def __add__(self, other: Tensor | Number) -> Tensor:
        return self._binary("add", other)

    def __radd__(self, other: Number) -> Tensor:
        return self._binary("add", other, swapped=True)

    def __sub__(self, other: Tensor | Number) -> Tensor:
        return self._binary("sub", other)

    def __rsub__(self, other: Number) -> Tensor:
        return self._binary("sub", other, swapped=True)

    def __mul__(self, other: Tensor | Number) -> Tensor:
        return self._binary("mul", other)

    def __rmul__(self, other: Number) -> Tensor:
        return self._binary("mul", other, swapped=True)

    def __truediv__(self, other: Tensor | Number) -> Tensor:
        return self._binary("div", other)

    def __rtruediv__(self, other: Number) -> Tensor:
        return self._binary("div", other, swapped=True)

    def __pow__(self, other: Tensor | Number) -> Tensor:
        from meshwright import ops

        return ops.square(self) if isinstance(other, (int, float)) and other == 2 else self._binary("pow", other)

    def __neg__(self) -> Tensor:
        from meshwright import ops

        return ops.unary("neg", self)

    def __lt__(self, other: Tensor | Number) -> Tensor:
        return self._binary("lt", other)

    def __le__(self, other: Tensor | Number) -> Tensor:
        return self._binary("le", other)

    def __gt__(self, other: Tensor | Number) -> Tensor:
        return self._binary("gt", other)

    def __ge__(self, other: Tensor | Number) -> Tensor:
        return self._binary("ge", other)

    def __eq__(self, other: Tensor | Number) -> Tensor:  # type: ignore[override]
        return self._binary("eq", other)

    def __ne__(self, other: Tensor | Number) -> Tensor:  # type: ignore[override]
        return self._binary("ne", other)

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        if not self._trace.open:
            return "Tensor(of a trace that has ended)"
        return f"Tensor({Spec(self.dtype, **self.dims)!r})"


def caller() -> str:
    """ "model.py:17": the line outside this package that is running."""
    frame: Any = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("meshwright."):
        frame = frame.f_back
    return f"{_shown_path(frame.f_code.co_filename)}:{frame.f_lineno}"


@lru_cache(maxsize=256)
def _shown_path(file: str) -> str:
    if "ipykernel_" in file:  # a cell of a notebook stands in a file of the kernel's own
        return "cell"
    near = os.path.relpath(file) if os.path.isabs(file) else file
    return file if near.startswith("..") else near


@contextmanager
def scope(name: str) -> Iterator[None]:
    """Names what is traced inside: `with mw.scope("attention"): ...`; scopes nest with dots, errors and captures use them."""
    if not name or name != name.strip(".") or any(character.isspace() for character in name):
        raise UserError(f"a scope's name has no spaces and no dot at its ends, found {name!r}")
    core = current_trace(f"mw.scope({name!r})").core
    outer = core.scope()
    core.set_scope(f"{outer}.{name}" if outer else name)
    try:
        yield
    finally:
        core.set_scope(outer)


@contextmanager
def immediate(check_finite: bool = False) -> Iterator[None]:
    """Evaluates each op at once with its reference, in double precision rounded to the dtype: values can be read, printed and branched on.

    with mw.immediate():
        x = mw.tensor(array, "batch", "embed")
        y = ops.exp(x)
        print(y.numpy())

    check_finite: stop at the first op that makes a NaN or an infinity, naming it.
    """
    with _activated(TraceState("immediate", True, check_finite)):
        yield


def tensor(values: Any, *dims: str, dtype: str | None = None) -> Tensor:
    """A tensor with numbers, in immediate mode. dtype: by default float32 for floats, int32 for integers."""
    from meshwright.arrays import to_numpy

    state = current_trace("mw.tensor")
    if not state.immediate:
        raise UserError("mw.tensor gives numbers, which a traced function takes as its inputs; use it in `with mw.immediate():`")
    array = to_numpy(values)
    if array.ndim != len(dims):
        raise UserError(f"mw.tensor: {array.ndim} dims of shape {array.shape} need as many names, found {list(dims)}")
    kind = long_dtype(dtype) if dtype else "float32" if array.dtype.kind == "f" else "int32"
    state.declare_new_dims()
    state.num_given += 1
    return Tensor(state, state.core.given(f"given.{state.num_given}", kind, list(zip(map(str, dims), array.shape, strict=True)), array))


SpecTree = Spec | Mapping[str, "SpecTree"]


def leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """("weights.gate", leaf), ... of nested dicts."""
    for name, value in tree.items():
        path = f"{prefix}.{name}" if prefix else str(name)
        if isinstance(value, Mapping):
            yield from leaves(value, path)
        else:
            yield path, value


_traced: weakref.WeakKeyDictionary[Callable[..., Any], dict[Any, Program]] = weakref.WeakKeyDictionary()


def trace(function: Callable[..., Any], /, **specs: SpecTree) -> Program:
    """Traces `function` once per (function, specs): it is called with tensors by keyword, and its result (a tensor, a tuple or a dict of
    them) becomes the Program's. A spec may be a dict of specs, which is handed over as a dict of tensors.

    Raises:
        UserError: a dim that was not declared (naming the nearest), dims that do not fit, a value that is read, each with its line.
    """
    flat = dict(leaves(specs))
    for name, spec in flat.items():
        if not isinstance(spec, Spec):
            raise UserError(f"trace: {name} must be an mw.Spec, found {spec!r}")
    key = tuple((name, spec.key()) for name, spec in flat.items())
    try:
        known = _traced.setdefault(function, {})
    except TypeError:  # no weak references to it: traced anew each time
        known = {}
    if key not in known:
        known[key] = _trace(function, specs, flat)
    return known[key]


def _trace(function: Callable[..., Any], specs: Mapping[str, SpecTree], flat: Mapping[str, Spec]) -> Program:
    from meshwright.program import Program

    name = getattr(function, "__name__", type(function).__name__)
    with _activated(TraceState(name if name.isidentifier() else "program", False)) as state:
        inputs = {path: Tensor(state, state.core.input(path, spec.dtype, list(spec.dims.items()))) for path, spec in flat.items()}
        result = function(**_tree(specs, inputs))
        names, form = _outputs(result, name)
        for output, value in names.items():
            if not isinstance(value, Tensor) or value._trace is not state:
                raise UserError(f"{name} returned {value!r} as {output!r}; expected a tensor of this trace")
            state.core.output(output, value._id)
        return Program(state.core.finish(), form)


def _tree(specs: Mapping[str, Any], inputs: Mapping[str, Tensor], prefix: str = "") -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, spec in specs.items():
        path = f"{prefix}.{name}" if prefix else name
        tree[name] = _tree(spec, inputs, path) if isinstance(spec, Mapping) else inputs[path]
    return tree


def _outputs(result: Any, function: str) -> tuple[dict[str, Any], type]:
    """Outputs by name and the form in which a run gives them back."""
    if isinstance(result, Tensor):
        return {"result": result}, Tensor
    if isinstance(result, Mapping):
        return {str(name): value for name, value in result.items()}, dict
    if isinstance(result, Sequence) and not isinstance(result, str) and result:
        return {f"result.{i}": value for i, value in enumerate(result)}, tuple
    raise UserError(f"{function} returned {result!r}; expected a tensor, a tuple or a dict of tensors")
