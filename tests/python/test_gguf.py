"""GGUF files as the package `gguf` writes them: their metadata, and every encoding decoded to the same bits as its reference."""

import gguf
import numpy as np
import pytest
import torch
from gguf.quants import dequantize, quantize
from meshwright import UserError, _core

Q = gguf.GGMLQuantizationType
ROWS, COLUMNS = 6, 512
# Where the half-precision scales of a block stand: any bytes may stand elsewhere.
HALVES = {Q.Q4_0: [0], Q.Q4_1: [0, 2], Q.Q5_0: [0], Q.Q5_1: [0, 2], Q.Q8_0: [0], Q.Q4_K: [0, 2], Q.Q5_K: [0, 2], Q.Q6_K: [208], Q.MXFP4: []}


def random_blocks(kind, rows, columns, seed):
    generator = np.random.default_rng(seed)
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = generator.integers(0, 256, (rows * columns // elements, size), dtype=np.uint8)
    for at in HALVES[kind]:
        blocks[:, at : at + 2] = generator.normal(size=(len(blocks), 1)).astype(np.float16).view(np.uint8)
    return blocks.reshape(rows, -1)


def llama_writer(path):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_embedding_length(COLUMNS)
    writer.add_head_count(1)
    writer.add_context_length(64)
    writer.add_layer_norm_rms_eps(1e-6)
    return writer


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


NAME, STORED_NAME = "model.layers.0.mlp.gate_proj.weight", "blk.0.ffn_gate.weight"


@pytest.mark.parametrize("kind", HALVES, ids=lambda kind: kind.name)
def test_blocks_decode_to_the_bits_of_the_reference(tmp_path, kind):
    path = str(tmp_path / "m.gguf")
    blocks = random_blocks(kind, ROWS, COLUMNS, int(kind))
    writer = llama_writer(path)
    writer.add_tensor(STORED_NAME, blocks, raw_dtype=kind)
    writer.add_tensor("output_norm.weight", np.ones(COLUMNS, dtype=np.float32))
    finish(writer)
    expected = dequantize(blocks, kind)
    ours = _core.read_tensor(path, NAME, "float32")
    assert ours.shape == (ROWS, COLUMNS)
    np.testing.assert_array_equal(ours.view(np.uint32), expected.view(np.uint32))
    for begin, end in [([1, 5], [3, 7]), ([0, 31], [6, 33]), ([5, 0], [6, 512]), ([2, 255], [4, 258]), ([3, 300], [3, 300])]:
        part = _core.read_tensor(path, NAME, "float32", begin, end)
        np.testing.assert_array_equal(part, expected[begin[0] : end[0], begin[1] : end[1]])
    rounded = torch.from_numpy(_core.read_tensor(path, NAME, "bfloat16")).view(torch.bfloat16)
    assert torch.equal(rounded, torch.from_numpy(expected).bfloat16())
    assert {row["name"]: row["stored"] for row in _core.list_weights(path)} == {NAME: kind.name, "model.norm.weight": "F32"}


@pytest.mark.parametrize("kind", [Q.Q8_0, Q.Q4_0, Q.BF16, Q.F16, Q.F32], ids=lambda kind: kind.name)
def test_real_weights_quantised_by_the_package(tmp_path, kind):
    path = str(tmp_path / "m.gguf")
    weights = np.random.default_rng(0).normal(size=(ROWS, COLUMNS)).astype(np.float32)
    stored = quantize(weights, kind)
    writer = llama_writer(path)
    writer.add_tensor(STORED_NAME, stored, raw_dtype=kind)
    finish(writer)
    expected = dequantize(stored, kind).reshape(ROWS, COLUMNS)
    np.testing.assert_array_equal(_core.read_tensor(path, NAME, "float32"), expected)
    assert np.abs(expected - weights).max() < 0.5
    dtype = {Q.F32: "f32", Q.F16: "f16"}.get(kind, "bf16")
    assert _core.list_weights(path)[0]["dtype"] == dtype


def test_metadata_is_the_files(tmp_path):
    path = str(tmp_path / "m.gguf")
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint8("a.u8", 255)
    writer.add_int8("a.i8", -128)
    writer.add_uint16("a.u16", 65535)
    writer.add_int16("a.i16", -32768)
    writer.add_uint32("a.u32", 2**32 - 1)
    writer.add_int32("a.i32", -(2**31))
    writer.add_uint64("a.u64", 2**64 - 1)
    writer.add_int64("a.i64", -(2**63))
    writer.add_float32("a.f32", 1e-6)
    writer.add_float64("a.f64", 0.1)
    writer.add_bool("a.bool", True)
    writer.add_string("a.text", "häuser 🏠")
    writer.add_array("a.texts", ["", "ab", "ü"])
    writer.add_array("a.ints", [-1, 2, 3])
    writer.add_array("a.floats", [0.5, 1e-6])
    writer.add_array("a.bools", [True, False])
    writer.add_token_list(["<unk>", "▁the"])
    writer.add_token_scores([0.0, -1.5])
    writer.add_token_types([2, 1])
    finish(writer)
    assert _core.gguf_metadata(path) == {
        "general.architecture": "llama",
        "a.u8": 255,
        "a.i8": -128,
        "a.u16": 65535,
        "a.i16": -32768,
        "a.u32": 2**32 - 1,
        "a.i32": -(2**31),
        "a.u64": 2**64 - 1,
        "a.i64": -(2**63),
        "a.f32": 1e-6,
        "a.f64": 0.1,
        "a.bool": True,
        "a.text": "häuser 🏠",
        "a.texts": ["", "ab", "ü"],
        "a.ints": [-1, 2, 3],
        "a.floats": [0.5, 1e-6],
        "a.bools": [True, False],
        "tokenizer.ggml.tokens": ["<unk>", "▁the"],
        "tokenizer.ggml.scores": [0.0, -1.5],
        "tokenizer.ggml.token_type": [2, 1],
    }


def refused(path, *parts, call=_core.list_weights):
    with pytest.raises(UserError) as caught:
        call(str(path))
    for part in parts:
        assert part in str(caught.value), str(caught.value)


def test_errors_list_what_exists(tmp_path):
    path = str(tmp_path / "m.gguf")
    writer = llama_writer(path)
    writer.add_tensor(STORED_NAME, np.zeros((2, 136), dtype=np.uint8), raw_dtype=Q.IQ4_XS)
    finish(writer)
    refused(path, "'blk.0.ffn_gate.weight' is stored as IQ4_XS, which is not read here; there are F32, F16, Q4_0", "Q6_K, BF16, MXFP4")

    writer = llama_writer(path)
    writer.add_tensor("blk.0.attn_something.weight", np.zeros((2, 4), dtype=np.float32))
    writer.add_tensor("blk.1.attn_v.weight", np.zeros((2, 4), dtype=np.float32))
    finish(writer)
    refused(
        path,
        "the architecture 'llama' with 1 layers has no such tensors:\n  blk.0.attn_something.weight [2, 4]\n  blk.1.attn_v.weight [2, 4]",
    )

    writer = gguf.GGUFWriter(path, "qwen3mo")
    writer.add_tensor("token_embd.weight", np.zeros((2, 4), dtype=np.float32))
    finish(writer)
    expected = "key 'general.architecture': expected one of llama, llama4, qwen3, qwen3moe"
    refused(path, expected, "found 'qwen3mo' (did you mean 'qwen3moe'?)")
    refused(path, expected, call=_core.gguf_config)

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("token_embd.weight", np.zeros((2, 4), dtype=np.float32))
    finish(writer)
    refused(path, "key 'llama.embedding_length': expected a whole number, found nothing", call=_core.gguf_config)
    refused(tmp_path / "none.gguf", "cannot open", "No such file")
    (tmp_path / "no.gguf").write_bytes(b"GGML" + bytes(100))
    refused(tmp_path / "no.gguf", "begins with the letters GGUF")


def test_split_files_are_one_model(tmp_path):
    weights = np.random.default_rng(0).normal(size=(3, 8, 32)).astype(np.float32)
    writer = gguf.GGUFWriter(None, "llama", split_max_tensors=1)
    writer.add_block_count(3)
    for layer in range(3):
        writer.add_tensor(f"blk.{layer}.ffn_up.weight", weights[layer])
    writer.write_header_to_file(tmp_path / "m.gguf")
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    first = tmp_path / "m-00001-of-00003.gguf"
    for layer in range(3):
        ours = _core.read_tensor(str(first), f"model.layers.{layer}.mlp.up_proj.weight", "float32")
        np.testing.assert_array_equal(ours, weights[layer])
    refused(tmp_path / "m-00002-of-00003.gguf", "is part 2 of 3; expected the first one, whose name ends in -00001-of-00003.gguf")
    (tmp_path / "m-00003-of-00003.gguf").unlink()
    refused(first, "m-00003-of-00003.gguf", "No such file")
