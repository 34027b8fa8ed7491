"""A traced Program: its text, its gradient, and running it with no Python in the loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meshwright import _core
from meshwright._core import UserError
from meshwright.arrays import NamedArray, bfloat16_bits, bfloat16_values, to_numpy
from meshwright.tracing import Spec, Tensor, leaves, long_dtype

_NUMPY: dict[str, type[np.generic]] = {
    "float32": np.float32,
    "bfloat16": np.float32,  # NumPy has no bfloat16
    "float16": np.float16,
    "float64": np.float64,
    "int32": np.int32,
    "uint8": np.uint8,
    "int8": np.int8,
}


class Program:
    """A straight list of ops over named dims. `print(program)` shows it; `mw.Program.parse(text)` reads it back."""

    def __init__(self, core: _core.Program, form: type) -> None:
        self._core, self._form = core, form
        self._runners: dict[Any, tuple[_core.Program, _core.ProgramRunner | None]] = {}

    @classmethod
    def parse(cls, text: str) -> Program:
        """The Program that `str(program)` wrote; a run gives its outputs as a dict."""
        return cls(_core.Program.parse(text), dict)

    @property
    def name(self) -> str:
        return str(self._core.name)

    @property
    def inputs(self) -> dict[str, Spec]:
        return {name: _spec(found) for name, found in self._core.inputs().items()}

    @property
    def outputs(self) -> dict[str, Spec]:
        return {name: _spec(found) for name, found in self._core.outputs().items()}

    @property
    def num_ops(self) -> int:
        return int(self._core.num_ops())

    @property
    def hash(self) -> int:
        """Of the text without source lines: equal on every rank that traced the same."""
        return int(self._core.hash())

    def to_text(self, sources: bool = False) -> str:
        text: str = self._core.to_text(sources)
        return text

    def __str__(self) -> str:
        return self.to_text()

    def __repr__(self) -> str:
        return f"Program({self.name!r}, {self.num_ops} ops, {self.inputs} -> {self.outputs})"

    def gradient(self, output: str | None = None, of: Sequence[str] | None = None) -> Program:
        """This Program with the gradient of a float32 scalar output by its inputs: a run gives a dict with this Program's outputs and
        "gradient.NAME" for each input in `of`. output: may be left out when there is one. of: by default every float input.

        Raises:
            UserError: no such output or input (naming the nearest), an output that is no float32 scalar, an op without a gradient.
        """
        names = list(self.outputs)
        if output is None:
            if len(names) != 1:
                raise UserError(f"gradient: say of which output: {', '.join(names)}")
            output = names[0]
        floats = [name for name, spec in self.inputs.items() if spec.dtype.startswith(("float", "bfloat"))]
        wanted = list(of) if of is not None else floats
        for name in wanted:
            if name not in floats:
                raise UserError(f"gradient: {name!r} is no float input of {self.name}; there are {', '.join(floats)}")
        return Program(self._core.differentiate(output, wanted), dict)

    def run(
        self,
        arrays: Mapping[str, Any] | None = None,
        /,
        *,
        kernels: str = "cpu",
        check_finite: bool = False,
        capture: Sequence[str] = (),
        threads: int = 0,
        **inputs: Any,
    ) -> Any:
        """Runs on arrays by input name (NumPy, torch or DLPack; dicts where the specs were dicts).

        kernels: "cpu", or "reference": op by op in double precision, rounded to each dtype. check_finite: stop at the first op that makes
        a NaN or an infinity, naming it. capture: scopes (with `*`) whose values are wanted too.

        Returns what the function returned, as NumPy arrays with `.dims` (bfloat16 as float32); with `capture`, (that, {scope: array}).

        Raises:
            UserError: an input that is missing, unknown or of another shape; a pattern that matches nothing.
        """
        if kernels not in ("cpu", "reference"):
            raise UserError(f"kernels must be 'cpu' or 'reference', found {kernels!r}")
        given = self._arrays(dict(leaves({**(arrays or {}), **inputs})), kernels)
        key = (tuple(capture), kernels, check_finite, threads)
        if key not in self._runners:
            core = self._core.with_captures(list(capture)) if capture else self._core
            runner = _core.ProgramRunner(core, check_finite, threads) if kernels == "cpu" else None
            self._runners[key] = (core, runner)
        core, runner = self._runners[key]
        found = core.run_reference(given, check_finite) if runner is None else runner.run(core, given)
        specs = {name: _spec(kind) for name, kind in core.outputs().items()}
        values = {name: _given_back(found[name], spec, kernels) for name, spec in specs.items()}
        mine = {name: values.pop(name) for name in self.outputs}
        result: Any = mine
        if self._form is not dict:
            result = mine["result"] if self._form is Tensor else tuple(mine.values())
        return (result, values) if capture else result

    def _arrays(self, given: Mapping[str, Any], kernels: str) -> dict[str, NDArray[Any]]:
        specs = self.inputs
        missing, unknown = [name for name in specs if name not in given], [name for name in given if name not in specs]
        if missing or unknown:
            raise UserError(
                f"{self.name} takes {', '.join(specs) or 'no inputs'}: missing {missing or 'nothing'}, unknown {unknown or 'nothing'}"
            )
        return {name: _checked(name, to_numpy(given[name]), spec, kernels) for name, spec in specs.items()}


def _spec(found: tuple[str, list[tuple[str, int]]]) -> Spec:
    return Spec(long_dtype(found[0]), **dict(found[1]))


def _checked(name: str, array: NDArray[Any], spec: Spec, kernels: str) -> NDArray[Any]:
    if array.shape != spec.shape:
        raise UserError(f"input {name!r} has the shape {array.shape}; expected {spec!r}")
    allowed = "iub" if "int" in spec.dtype else "fiub"
    if array.dtype.kind not in allowed:
        raise UserError(f"input {name!r} holds {array.dtype}; expected {spec!r}")
    if kernels == "reference":
        return array
    if spec.dtype == "bfloat16":
        return np.ascontiguousarray(bfloat16_bits(array))
    values = np.ascontiguousarray(array, dtype=_NUMPY[spec.dtype]).reshape(spec.shape)
    return values.view(np.uint16) if spec.dtype == "float16" else values


def _given_back(array: NDArray[Any], spec: Spec, kernels: str) -> NamedArray:
    if kernels == "cpu" and spec.dtype == "bfloat16":
        array = bfloat16_values(array)
    elif kernels == "cpu" and spec.dtype == "float16":
        array = array.view(np.float16)
    return NamedArray(array.astype(_NUMPY[spec.dtype]), tuple(spec.dims))
