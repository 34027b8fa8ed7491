"""Arrays that come in (NumPy, torch, DLPack) and go out (NumPy with named dims)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class NamedArray(np.ndarray[Any, Any]):
    """A NumPy array that knows its dims: `array.dims == ("batch", "seq", "embed")`."""

    dims: tuple[str, ...]

    def __new__(cls, values: NDArray[Any], dims: Sequence[str]) -> NamedArray:
        array = np.asarray(values).view(cls)
        array.dims = tuple(dims)
        return array

    def __array_finalize__(self, source: Any) -> None:
        # A slice or reduction no longer has those dims; only a copy of the same shape keeps them.
        dims = getattr(source, "dims", ())
        self.dims = dims if len(dims) == self.ndim and getattr(source, "shape", None) == self.shape else ()


def to_numpy(values: Any) -> NDArray[Any]:
    if hasattr(values, "detach"):  # torch: bfloat16 has no NumPy twin
        values = values.detach()
        values = (values.float() if str(values.dtype) == "torch.bfloat16" else values).cpu().numpy()
    elif hasattr(values, "__dlpack__") and not isinstance(values, np.ndarray):
        values = np.from_dlpack(values)
    return np.asarray(values)


def bfloat16_values(bits: NDArray[Any]) -> NDArray[np.float32]:
    """float32 values of bfloat16 numbers given as their bits."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def bfloat16_bits(values: NDArray[Any]) -> NDArray[np.uint16]:
    """Bits of the nearest bfloat16 numbers, ties to even; a NaN stays one."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where((bits & 0x7FFFFFFF) > 0x7F800000, (bits >> 16) | 0x40, rounded).astype(np.uint16)
