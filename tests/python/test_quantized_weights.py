"""Weights that were published quantised, FP8 with block scales and MXFP4, read exactly as torch and transformers decode them."""

import json
import random

import pytest
import torch
from meshwright import UserError, _core
from safetensors.torch import save_file
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

TORCH = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def read(folder, name, dtype="float32", begin=None, end=None):
    array = _core.read_tensor(str(folder), name, dtype, begin, end)
    return torch.from_numpy(array).view(TORCH[dtype])


def same(ours, theirs):
    """Equal bit by bit, where NaN is NaN."""
    return ours.shape == theirs.shape and torch.equal(torch.nan_to_num(ours, 7.5), torch.nan_to_num(theirs, 7.5))


def random_slices(generator, shape, count):
    for _ in range(count):
        pairs = [sorted(generator.sample(range(size + 1), 2)) for size in shape]
        yield [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def cut(tensor, begin, end):
    return tensor[tuple(slice(b, e) for b, e in zip(begin, end, strict=True))]


def put_config(folder, block=None, **fields):
    quantization = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", **({"weight_block_size": block} if block else {})}
    (folder / "config.json").write_text(json.dumps({"quantization_config": quantization | fields}))


def fp8_weight(rows, columns, block, seed, scale_dtype=torch.float32):
    """A weight of every bit pattern there is, NaN too, its scales, and what torch makes of them."""
    torch.manual_seed(seed)
    values = torch.randint(0, 256, (rows, columns), dtype=torch.uint8).view(torch.float8_e4m3fn)
    blocks = (-(-rows // block[0]), -(-columns // block[1]))
    scales = (torch.randn(blocks) * 3).to(scale_dtype)
    spread = scales.float().repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)[:rows, :columns]
    return values, scales, values.to(torch.float32) * spread


@pytest.mark.parametrize(
    ("rows", "columns", "block"), [(576, 300, (128, 128)), (128, 128, (128, 128)), (1, 1, (128, 128)), (37, 50, (5, 7)), (130, 1, (64, 32))]
)
def test_fp8_weights_are_torchs_product(tmp_path, rows, columns, block):
    values, scales, expected = fp8_weight(rows, columns, block, rows)
    save_file(
        {"a.weight": values, "a.weight_scale_inv": scales, "norm.weight": torch.ones(3, dtype=torch.bfloat16)},
        tmp_path / "model.safetensors",
    )
    put_config(tmp_path, list(block))
    listed = {row["name"]: row for row in _core.list_weights(str(tmp_path))}
    assert listed.keys() == {"a.weight", "norm.weight"}
    assert listed["a.weight"] == {"name": "a.weight", "stored": "F8_E4M3", "dtype": "bf16", "shape": (rows, columns)}
    for dtype, kind in TORCH.items():
        assert same(read(tmp_path, "a.weight", dtype), expected.to(kind)), dtype
    for begin, end in random_slices(random.Random(rows), (rows, columns), 30):
        assert same(read(tmp_path, "a.weight", "bfloat16", begin, end), cut(expected, begin, end).to(torch.bfloat16)), (begin, end)
    assert _core.stored_parts(str(tmp_path), "a.weight") == ["a.weight", "a.weight_scale_inv"]
    assert _core.stored_parts(str(tmp_path), "norm.weight") == ["norm.weight"]
    stored = b"".join(_core.read_tensor_bytes(str(tmp_path), part) for part in _core.stored_parts(str(tmp_path), "a.weight"))
    assert stored == values.view(torch.uint8).numpy().tobytes() + scales.numpy().tobytes()


def test_fp8_scales_may_be_in_another_file_and_dtype(tmp_path):
    values, scales, expected = fp8_weight(200, 260, (128, 128), 3, torch.bfloat16)
    save_file({"a.weight": values}, tmp_path / "model-00001-of-00002.safetensors")
    save_file({"a.weight_scale_inv": scales}, tmp_path / "model-00002-of-00002.safetensors")
    weight_map = {"a.weight": "model-00001-of-00002.safetensors", "a.weight_scale_inv": "model-00002-of-00002.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert same(read(tmp_path, "a.weight"), expected)  # without a config.json the blocks are 128 x 128


def refused(folder, *parts):
    with pytest.raises(UserError) as caught:
        _core.list_weights(str(folder))
    for part in parts:
        assert part in str(caught.value), str(caught.value)


def test_fp8_errors_say_what_is_missing(tmp_path):
    values, scales, _ = fp8_weight(200, 260, (128, 128), 3)
    path = tmp_path / "model.safetensors"
    save_file({"a.weight": values}, path)
    refused(tmp_path, "'a.weight' is stored as F8_E4M3[200, 260]", "block scales in 'a.weight_scale_inv', which is missing")
    save_file({"a.weight": values, "a.weight_scale_inv": scales[:1].contiguous()}, path)
    refused(tmp_path, "'a.weight_scale_inv' is F32[1, 3]; expected floats [2, 3], one per block of 128 x 128 of F8_E4M3[200, 260]")
    save_file({"a.weight": values, "a.weight_scale_inv": torch.zeros(2, 3, dtype=torch.int32)}, path)
    refused(tmp_path, "'a.weight_scale_inv' is I32[2, 3]")
    save_file({"a": values}, path)
    refused(tmp_path, "'a' is stored as F8_E4M3")
    save_file({"a.weight": values.to(torch.float8_e5m2)}, path)
    refused(tmp_path, "F8_E5M2", "F8_E4M3 with block scales")
    save_file({"a.weight": values, "a.weight_scale_inv": scales}, path)
    put_config(tmp_path, [128, 0])
    refused(tmp_path, "weight_block_size: expected two numbers of at least 1", "[128,0]")
    put_config(tmp_path, quant_method="gptq")
    refused(tmp_path, "quant_method: expected 'fp8'", "'mxfp4'", "gptq")
    put_config(tmp_path, fmt="e5m2")
    refused(tmp_path, "fmt: expected 'e4m3', found", "e5m2")
    put_config(tmp_path)
    with pytest.raises(UserError, match="holds floats and cannot be read as i32"):
        _core.read_tensor(str(tmp_path), "a.weight", "int32")
    with pytest.raises(UserError, match="not inside tensor"):
        _core.read_tensor(str(tmp_path), "a.weight", "float32", [0, 0], [201, 1])
    with pytest.raises(UserError, match="did you mean 'a.weight'"):
        _core.read_tensor(str(tmp_path), "a.weigh", "float32")


def mxfp4(experts, out, groups, seed):
    torch.manual_seed(seed)
    blocks = torch.randint(0, 256, (experts, out, groups, 16), dtype=torch.uint8)
    scales = torch.randint(0, 255, (experts, out, groups), dtype=torch.uint8)  # 255 is no number
    return blocks, scales


@pytest.mark.parametrize(("experts", "out", "groups"), [(4, 96, 3), (1, 1, 1), (3, 5, 11), (2, 300, 9)])
def test_mxfp4_experts_are_those_of_transformers(tmp_path, experts, out, groups):
    blocks, scales = mxfp4(experts, out, groups, out)
    name = "model.layers.0.mlp.experts.down_proj"
    bias = torch.randn(experts, out).to(torch.bfloat16)
    save_file({f"{name}_blocks": blocks, f"{name}_scales": scales, f"{name}_bias": bias}, tmp_path / "model.safetensors")
    put_config(tmp_path, quant_method="mxfp4", modules_to_not_convert=["lm_head"])
    listed = {row["name"]: row for row in _core.list_weights(str(tmp_path))}
    assert listed.keys() == {name, f"{name}_bias"}
    assert listed[name] == {"name": name, "stored": "MXFP4", "dtype": "bf16", "shape": (experts, groups * 32, out)}
    for dtype in ("bfloat16", "float32"):
        expected = convert_moe_packed_tensors(blocks, scales, dtype=TORCH[dtype])
        assert same(read(tmp_path, name, dtype), expected), dtype
        for begin, end in random_slices(random.Random(out), expected.shape, 30):
            assert same(read(tmp_path, name, dtype, begin, end), cut(expected, begin, end)), (begin, end)
    assert _core.stored_parts(str(tmp_path), name) == [f"{name}_blocks", f"{name}_scales"]


def test_mxfp4_errors_say_what_is_missing(tmp_path):
    blocks, scales = mxfp4(2, 6, 3, 0)
    path = tmp_path / "model.safetensors"
    save_file({"a_blocks": blocks}, path)
    refused(tmp_path, "'a_blocks' holds MXFP4 blocks and wants its scales in 'a_scales', which is missing")
    save_file({"a_blocks": blocks, "a_scales": scales[:, :5].contiguous()}, path)
    refused(tmp_path, "'a_blocks' is U8[2, 6, 3, 16]", "'a_scales' is U8[2, 5, 3]", "expected U8[experts, out, in / 32, 16]")
    save_file({"a_blocks": blocks, "a_scales": scales, "a": torch.zeros(1)}, path)
    refused(tmp_path, "'a' is there twice")


def test_one_expert_of_many(tmp_path):
    blocks, scales = mxfp4(16, 256, 16, 1)
    save_file({"a_blocks": blocks, "a_scales": scales}, tmp_path / "model.safetensors")
    expected = convert_moe_packed_tensors(blocks[3:4].clone(), scales[3:4].clone(), dtype=torch.bfloat16)
    assert same(read(tmp_path, "a", "bfloat16", [3, 0, 0], [4, 512, 256]), expected)
