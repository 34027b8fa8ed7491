"""TensorBoard event files, written without TensorFlow.

A file is a sequence of TFRecords: length (u64), masked crc32c of the length (u32), payload, masked crc32c of the payload (u32), all little
endian. A payload is an `Event` in protobuf encoding: 1 wall_time (double), 2 step (int64), 3 file_version, 5 summary, 7 session_log;
a summary holds values of 1 tag and 2 simple_value (float).
Formats: tensorflow/core/util/event.proto, summary.proto and lib/io/record_writer.h.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path


def _crc32c_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_TABLE = _crc32c_table()


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli), RFC 3720 appendix B.4."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def _masked(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _record(payload: bytes) -> bytes:
    length = struct.pack("<Q", len(payload))
    return length + _masked(length) + payload + _masked(payload)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _bytes_field(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _event(step: int, content: bytes) -> bytes:
    wall_time = b"\x09" + struct.pack("<d", time.time())
    return wall_time + b"\x10" + _varint(step) + content


class EventFile:
    """Appends scalars to a new event file in `folder`. `resume_step` tells TensorBoard to drop what older files hold for later steps."""

    def __init__(self, folder: str | os.PathLike[str], resume_step: int = 0) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        # The name carries the time so that files of a resumed run sort in order; the reader wants "tfevents" in it.
        name = f"events.out.tfevents.{time.time_ns() // 1000:017d}.{socket.gethostname()}.{os.getpid()}"
        self.path = Path(folder) / name
        self._file = open(self.path, "ab", buffering=0)
        self._file.write(_record(_event(0, _bytes_field(3, b"brain.Event:2"))))
        session_started = _bytes_field(7, b"\x08\x01")
        self._file.write(_record(_event(resume_step + 1, session_started)))

    def add_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """One event with a value per tag."""
        summary = b"".join(
            _bytes_field(1, _bytes_field(1, tag.encode()) + b"\x15" + struct.pack("<f", _as_float32(value)))
            for tag, value in scalars.items()
        )
        self._file.write(_record(_event(step, _bytes_field(5, summary))))

    def close(self) -> None:
        self._file.close()


def _as_float32(value: float) -> float:
    limit = 3.4028234663852886e38
    return value if value != value or -limit <= value <= limit else (float("inf") if value > 0 else float("-inf"))
