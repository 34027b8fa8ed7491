"""Our safetensors reader and writer against the reference package, torch and transformers, byte by byte and verdict by verdict."""

import json
import random
import struct

import pytest
import safetensors
import safetensors.torch
import torch
import transformers
from meshwright import UserError, _core

# What we refuse although the reference reads it (docs/formats/checkpoint.md); everything else must have the same verdict.
STRICTER = (
    "occurs twice",
    "must begin with '{'",
    "more than 64 dims",
    "nested deeper than 64 levels",
    "expected an object for key",
    "is too large",
)


def file_bytes(header, data=b"", length=None):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def tensor(dtype="F32", shape=(1,), offsets=(0, 4), **extra):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **extra}


def reference_reads(path):
    """The verdict of the reference, on the file as a user's program would open it."""
    try:
        with safetensors.safe_open(path, framework="np") as file:
            return sorted(file.keys())
    except (safetensors.SafetensorError, OSError, ValueError):
        return None


def we_read(path):
    try:
        return [row["name"] for row in _core.list_tensors(str(path))], ""
    except UserError as error:
        return None, str(error)


def disagreement(path):
    """None, or what is wrong when our verdict on this file is not the reference's."""
    reference, (ours, reason) = reference_reads(path), we_read(path)
    if ours is None and reference is not None:
        return None if any(part in reason for part in STRICTER) else f"the reference reads it, we say: {reason}"
    if ours is not None and reference is None:
        return "the reference refuses it, we read it"
    return None if ours == reference else f"names differ: {ours} and {reference}"


HAND_MADE = {
    "empty": b"",
    "short": b"1234567",
    "no header": file_bytes(b""),
    "empty header": file_bytes(b"{}"),
    "header and padding": file_bytes(b"{}      "),
    "header longer than the file": file_bytes(b"{}", length=3),
    "header of 2^63": file_bytes(b"{}", length=2**63),
    "header of 2^64-1": file_bytes(b"{}", length=2**64 - 1),
    "header above the cap": file_bytes(b"{}", length=100_000_001),
    "not utf-8": file_bytes(b'{"\xff":1}'),
    "byte order mark": file_bytes(b"\xef\xbb\xbf{}"),
    "leading space": file_bytes(b" {}"),
    "two values": file_bytes(b"{}{}"),
    "array": file_bytes(b"[]"),
    "number": file_bytes(b"1"),
    "one": file_bytes({"a": tensor()}, b"1234"),
    "short body": file_bytes({"a": tensor()}, b"123"),
    "extra body": file_bytes({"a": tensor()}, b"12345"),
    "size mismatch": file_bytes({"a": tensor(shape=(2,))}, b"1234"),
    "scalar": file_bytes({"a": tensor(shape=())}, b"1234"),
    "zero dim": file_bytes({"a": tensor(shape=(0, 5), offsets=(0, 0))}),
    "negative dim": file_bytes({"a": tensor(shape=(-1,))}, b"1234"),
    "float dim": file_bytes({"a": tensor(shape=(1.0,))}, b"1234"),
    "bool dim": file_bytes({"a": tensor(shape=(True,))}, b"1234"),
    "string dim": file_bytes({"a": tensor(shape=("1",))}, b"1234"),
    "nested dim": file_bytes({"a": tensor(shape=([1],))}, b"1234"),
    "minus zero": file_bytes(b'{"a":{"dtype":"F32","shape":[-0],"data_offsets":[0,0]}}'),
    "negative offset": file_bytes({"a": tensor(offsets=(-4, 0))}, b"1234"),
    "one offset": file_bytes({"a": tensor(offsets=(4,))}, b"1234"),
    "three offsets": file_bytes({"a": tensor(offsets=(0, 4, 4))}, b"1234"),
    "backwards": file_bytes({"a": tensor(offsets=(4, 0))}, b"1234"),
    "hole in front": file_bytes({"a": tensor(offsets=(4, 8))}, b"12345678"),
    "hole between": file_bytes({"a": tensor(), "b": tensor(offsets=(8, 12))}, b"123456789012"),
    "overlap": file_bytes({"a": tensor(), "b": tensor(offsets=(2, 6))}, b"123456"),
    "same bytes twice": file_bytes({"a": tensor(), "b": tensor()}, b"1234"),
    "any order": file_bytes({"b": tensor(offsets=(4, 8)), "a": tensor()}, b"12345678"),
    "huge offset": file_bytes({"a": tensor(offsets=(0, 2**64 - 1))}, b"1234"),
    "offset beyond 64 bits": file_bytes({"a": tensor(offsets=(0, 2**64))}, b"1234"),
    "dim beyond 64 bits": file_bytes({"a": tensor(shape=(2**64,))}, b"1234"),
    "overflow of bytes": file_bytes({"a": tensor(shape=(2**62 + 1,))}, b"1234"),
    "overflow of elements": file_bytes({"a": tensor(shape=(2**32, 2**32, 0), offsets=(0, 0))}),
    "zero before overflow": file_bytes({"a": tensor(shape=(0, 2**62, 2**62), offsets=(0, 0))}),
    "no dtype": file_bytes({"a": {"shape": [1], "data_offsets": [0, 4]}}, b"1234"),
    "no shape": file_bytes({"a": {"dtype": "F32", "data_offsets": [0, 4]}}, b"1234"),
    "no offsets": file_bytes({"a": {"dtype": "F32", "shape": [1]}}, b"1234"),
    "lower-case dtype": file_bytes({"a": tensor("f32")}, b"1234"),
    "unknown dtype": file_bytes({"a": tensor("F128", offsets=(0, 16))}, b"1234567890123456"),
    "number as dtype": file_bytes({"a": {"dtype": 1, "shape": [1], "data_offsets": [0, 4]}}, b"1234"),
    "odd half bytes": file_bytes({"a": tensor("F4", (1,), (0, 1))}, b"1"),
    "extra field": file_bytes({"a": tensor(x=[1, {"y": None}])}, b"1234"),
    "null metadata": file_bytes({"__metadata__": None}),
    "metadata": file_bytes({"__metadata__": {"a": "b"}}),
    "number in metadata": file_bytes({"__metadata__": {"a": 1}}),
    "array as metadata": file_bytes({"__metadata__": []}),
    "null tensor": file_bytes({"a": None}),
    "array as tensor": file_bytes({"a": ["F32", [1], [0, 4]]}, b"1234"),
    "empty name": file_bytes({"": tensor()}, b"1234"),
    "hostile names": file_bytes({"../a": tensor(), "b\0c": tensor(offsets=(4, 8))}, b"12345678"),
    "same name twice": file_bytes(b'{"a":%b,"a":%b}' % ((json.dumps(tensor()).encode(),) * 2), b"1234"),
    "same key twice": file_bytes(b'{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b"1234"),
    "deep": file_bytes(b'{"a":' + b"[" * 200_000),
    "deep in an extra field": file_bytes(b'{"a":{"x":' + b"[" * 200_000),
    "rank 65": file_bytes({"a": tensor(shape=(1,) * 65)}, b"1234"),
    "lone surrogate": file_bytes(b'{"\\ud800":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b"1234"),
}
ACCEPTED = {
    "empty header",
    "header and padding",
    "one",
    "scalar",
    "zero dim",
    "any order",
    "zero before overflow",
    "extra field",
    "null metadata",
    "metadata",
    "empty name",
    "hostile names",
}


@pytest.mark.parametrize("name", HAND_MADE)
def test_verdict_on_a_hand_made_file(name, tmp_path):
    path = tmp_path / "t.safetensors"
    path.write_bytes(HAND_MADE[name])
    assert (we_read(path)[0] is not None) == (name in ACCEPTED)
    assert disagreement(path) is None


@pytest.mark.parametrize(
    "dtype", "BOOL F4 F6_E2M3 U8 I8 F8_E5M2 F8_E4M3 F8_E8M0 I16 U16 F16 BF16 I32 U32 F32 C64 F64 I64 U64 F12 f16".split()
)
@pytest.mark.parametrize("bits", [4, 6, 8, 16, 32, 64])
def test_verdict_on_every_dtype_and_size(dtype, bits, tmp_path):
    path = tmp_path / "t.safetensors"
    path.write_bytes(file_bytes({"a": tensor(dtype, (8,), (0, bits))}, bytes(bits)))
    assert disagreement(path) is None


def mutated(data, random):
    tokens = [
        b"18446744073709551615",
        b"-1",
        b"0",
        b"1e3",
        b"1.0",
        b"null",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b'"',
        b"\\u0000",
        b"\xff",
        b"F4",
        b" ",
    ]
    data = bytearray(data)
    for _ in range(random.randint(1, 3)):
        at = random.randrange(len(data) + 1)
        match random.randrange(5):
            case 0 if at < len(data):
                data[at] ^= 1 << random.randrange(8)
            case 1:
                del data[at : at + random.randrange(4)]
            case 2:
                data[at:at] = random.choice(tokens)
            case 3:
                data[at : at + random.randrange(6)] = random.choice(tokens)
            case _:
                data[at:at] = data[at : at + random.randrange(20)]
    return bytes(data)


def test_verdicts_agree_on_mutations(tmp_path):
    generator = random.Random(7)
    header = json.dumps(
        {
            "__metadata__": {"format": "pt"},
            "a": tensor("F32", (2, 3), (0, 24)),
            "b": tensor("BF16", (4,), (24, 32)),
            "c": tensor("F4", (2, 0), (32, 32), x=1),
        }
    ).encode()
    path = tmp_path / "t.safetensors"
    wrong, num_read = [], 0
    for _ in range(4000):
        changed = mutated(header, generator)
        length = len(changed) if generator.random() < 0.9 else generator.choice([0, 1, 7, len(changed) + 1, 2**40])
        path.write_bytes(file_bytes(changed, bytes(32), length))
        num_read += we_read(path)[0] is not None
        if problem := disagreement(path):
            wrong.append((changed, problem))
    assert not wrong, wrong[:3]
    assert num_read > 100


TENSORS = {
    "w": torch.arange(12, dtype=torch.float32).reshape(3, 4) / 7,
    "b": torch.arange(5).to(torch.bfloat16),
    "h": torch.tensor([1.5, -2.25], dtype=torch.float16),
    "i": torch.tensor([[1], [-2]], dtype=torch.int32),
    "u": torch.tensor([1, 2, 255], dtype=torch.uint8),
    "s": torch.tensor(3.0),
    "none": torch.zeros(0, 7),
    "Größe\n\"'": torch.ones(1),
}
DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16", torch.int32: "int32", torch.uint8: "uint8"}


def raw(value):
    return value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b""


def test_files_written_here_open_in_the_reference(tmp_path):
    path = str(tmp_path / "t.safetensors")
    _core.write_safetensors(path, [(name, DTYPES[value.dtype], value.shape, raw(value)) for name, value in TENSORS.items()])
    loaded = safetensors.torch.load_file(path)
    assert loaded.keys() == TENSORS.keys()
    for name, value in TENSORS.items():
        assert loaded[name].dtype == value.dtype and loaded[name].shape == value.shape and raw(loaded[name]) == raw(value)
    with safetensors.safe_open(path, framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert torch.equal(file.get_slice("w")[1:3, 2:], TENSORS["w"][1:3, 2:])
    data = (tmp_path / "t.safetensors").read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    assert length % 8 == 0
    header = json.loads(data[8 : 8 + length])
    assert all(header[name]["data_offsets"][0] % value.element_size() == 0 for name, value in TENSORS.items())


def test_files_of_the_reference_open_here(tmp_path):
    path = str(tmp_path / "t.safetensors")
    tensors = TENSORS | {"q": torch.ones(4).to(torch.float8_e4m3fn), "l": torch.tensor([2**40]), "t": torch.tensor([True, False])}
    safetensors.torch.save_file(tensors, path, metadata={"any": "thing"})
    rows = {row["name"]: row for row in _core.list_tensors(path)}
    assert list(rows) == sorted(tensors, key=str.encode)
    for name, value in tensors.items():
        assert rows[name]["shape"] == tuple(value.shape)
        assert rows[name]["bytes"] == len(raw(value))
        assert _core.read_tensor_bytes(path, name) == raw(value)
    assert [rows[name]["dtype"] for name in "qltb"] == ["F8_E4M3", "I64", "BOOL", "BF16"]


def test_folders_of_transformers_open_here(tmp_path):
    config = transformers.LlamaConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, vocab_size=128)
    model = transformers.LlamaForCausalLM(config)
    for folder, shard in ((tmp_path / "single", "1GB"), (tmp_path / "sharded", "20KB")):
        model.save_pretrained(folder, max_shard_size=shard)
        rows = _core.list_tensors(str(folder))
        assert [row["name"] for row in rows] == sorted(model.state_dict())
        assert (len({row["file"] for row in rows}) > 1) == (shard == "20KB")
        for name, value in model.state_dict().items():
            assert _core.read_tensor_bytes(str(folder), name) == raw(value)


def test_errors_reach_python_as_user_errors(tmp_path):
    with pytest.raises(UserError, match="cannot open: No such file"):
        _core.list_tensors(str(tmp_path / "none.safetensors"))
    with pytest.raises(UserError, match="expected a folder"):
        _core.list_tensors(str(tmp_path / "none"))
    with pytest.raises(UserError, match="needs 8 bytes, found 4"):
        _core.write_safetensors(str(tmp_path / "t.safetensors"), [("a", "float32", (2,), b"1234")])
    assert _core.newest_checkpoint(str(tmp_path)) == {"path": None, "step": None, "skipped": []}
    (tmp_path / "step-00000001").mkdir()
    (skipped,) = _core.newest_checkpoint(str(tmp_path))["skipped"]
    assert "step-00000001/manifest.json: cannot open" in skipped
    assert _core.checkpoint_problem(str(tmp_path / "step-00000001")) == skipped
