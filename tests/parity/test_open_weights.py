"""Models in the formats they are published in, from file to logits: GGUF, FP8 block scales, MXFP4, GPT-2's bare names, an image encoder
beside the text model; and how much memory a large import takes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import gguf
import meshwright as mw
import numpy as np
import pytest
import torch
import transformers
from gguf_conversion import convert
from meshwright.cli.main import main
from parity.reference_models import VOCAB, make_batch, make_model, save_model
from safetensors.torch import load_file, save_file


def logits_of(theirs: transformers.PreTrainedModel, ids: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return theirs(ids).logits.float().numpy()


def assert_close(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert np.abs(ours - theirs).max() <= 1e-4 * max(1.0, np.abs(theirs).max())


@pytest.mark.parametrize("case", ["llama_own_head_dim", "mistral_no_window", "mixtral", "qwen3", "qwen3_moe", "gemma"])
def test_gguf_files_compute_what_the_folder_does(case, tmp_path) -> None:
    theirs = make_model(case)
    folder = save_model(case, tmp_path)
    convert(folder, tmp_path / "model.gguf")
    ours = mw.Model.from_pretrained(tmp_path / "model.gguf", dtype="float32")
    ids = make_batch()
    assert_close(ours(ids), logits_of(theirs, ids))


def test_a_quantised_gguf_file_computes_what_its_decoded_weights_do(tmp_path) -> None:
    sizes = dict(vocab_size=VOCAB, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
    config = transformers.LlamaConfig(**sizes, max_position_embeddings=128, attn_implementation="eager")
    theirs = transformers.LlamaForCausalLM(config).eval()
    theirs.save_pretrained(tmp_path / "model")
    convert(tmp_path / "model", tmp_path / "q8.gguf", gguf.GGMLQuantizationType.Q8_0)
    ours = mw.Model.from_pretrained(tmp_path / "q8.gguf", dtype="float32")
    decoded = {name: torch.from_numpy(np.asarray(weight)) for name, weight in ours.state_dict().items()}
    assert not torch.equal(decoded["model.layers.0.mlp.up_proj.weight"], theirs.state_dict()["model.layers.0.mlp.up_proj.weight"])
    theirs.load_state_dict(decoded)
    ids = make_batch()
    assert_close(ours(ids), logits_of(theirs, ids))
    ours.save_pretrained(tmp_path / "saved")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "saved", attn_implementation="eager", dtype=torch.float32).eval()
    assert_close(logits_of(again, ids), logits_of(theirs, ids))


def in_fp8(folder: Path, block: int = 16) -> dict[str, torch.Tensor]:
    """Rewrites the folder's linear layers as FP8 with block scales; gives the tensors that they stand for."""
    stored, meant = {}, {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        if tensor.ndim != 2 or any(part in name for part in ("embed_tokens", "lm_head", "mlp.gate.weight")):
            stored[name] = meant[name] = tensor
            continue
        rows, columns = (-(-size // block) for size in tensor.shape)
        scales = torch.rand(rows, columns) * 0.01 + 0.005
        spread = scales.repeat_interleave(block, 0).repeat_interleave(block, 1)[: tensor.shape[0], : tensor.shape[1]]
        values = (tensor / spread).to(torch.float8_e4m3fn)
        stored[name], stored[name + "_scale_inv"] = values, scales
        meant[name] = values.float() * spread
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "fp8",
        "fmt": "e4m3",
        "activation_scheme": "dynamic",
        "weight_block_size": [block, block],
    }
    (folder / "config.json").write_text(json.dumps(config))
    return meant


def as_model(case: str, tensors: dict[str, torch.Tensor], folder: Path) -> transformers.PreTrainedModel:
    """transformers' model of a case with other weights, through a folder, since only files have the names of the hub."""
    make_model(case).save_pretrained(folder)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


@pytest.mark.parametrize("case", ["deepseek_v3", "qwen3"])
def test_fp8_weights(case, tmp_path, capsys) -> None:
    folder = save_model(case, tmp_path)
    meant = in_fp8(folder)
    ours = mw.Model.from_pretrained(folder, dtype="float32")
    ids = make_batch()
    assert_close(ours(ids), logits_of(as_model(case, meant, tmp_path / "meant"), ids))
    # Kept as they were: the same bytes under the same names, and the configuration says so.
    assert main(["export", str(folder), f"output={tmp_path / 'kept'}", "keep_quantized=true"]) == 0
    assert "quantised weights as they were" in capsys.readouterr().out
    before = load_file(folder / "model.safetensors")
    index = json.loads((tmp_path / "kept" / "model.safetensors.index.json").read_text())["weight_map"]
    after = {name: tensor for file in set(index.values()) for name, tensor in load_file(tmp_path / "kept" / file).items()}
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert tensor.dtype == after[name].dtype and torch.equal(tensor.view(torch.uint8), after[name].view(torch.uint8)), name
    assert json.loads((tmp_path / "kept" / "config.json").read_text())["quantization_config"]["weight_block_size"] == [16, 16]
    assert_close(mw.Model.from_pretrained(tmp_path / "kept", dtype="float32")(ids), ours(ids))


def test_changed_weights_are_not_passed_off_as_the_published_ones(tmp_path) -> None:
    folder = save_model("qwen3", tmp_path)
    with pytest.raises(mw.UserError, match="keep_quantized: expected a model that was read from a folder with FP8 or MXFP4 weights"):
        mw.Model.from_pretrained(folder).save_pretrained(tmp_path / "a", keep_quantized=True)
    in_fp8(folder)
    model = mw.Model.from_pretrained(folder, dtype="float32")
    mw.Trainer(model, mw.SGD(lr=0.1), show=False).step({"input_ids": make_batch()})
    with pytest.raises(mw.UserError, match="keep_quantized: the weights have changed since they were read"):
        model.save_pretrained(tmp_path / "a", keep_quantized=True)
    model.save_pretrained(tmp_path / "a")
    assert mw.Model.from_pretrained(tmp_path / "a").dtype == "float32"


def test_mxfp4_experts(tmp_path) -> None:
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    sizes = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16)
    experts = dict(num_local_experts=4, num_experts_per_tok=2, sliding_window=7)
    config = transformers.GptOssConfig(vocab_size=VOCAB, max_position_embeddings=128, attn_implementation="eager", **sizes, **experts)
    config.layer_types = ["sliding_attention", "full_attention"]
    torch.manual_seed(3)
    theirs = transformers.GptOssForCausalLM(config).eval()
    theirs.save_pretrained(tmp_path / "published")
    stored = load_file(tmp_path / "published" / "model.safetensors")
    for name in [n for n in stored if n.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
        count, rows, out = stored.pop(name).shape
        blocks = torch.randint(0, 256, (count, out, rows // 32, 16), dtype=torch.uint8)
        scales = torch.randint(118, 124, (count, out, rows // 32), dtype=torch.uint8)
        stored[name + "_blocks"], stored[name + "_scales"] = blocks, scales
        meant = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
        theirs.get_parameter(name).data.copy_(meant)
    save_file(stored, tmp_path / "published" / "model.safetensors", {"format": "pt"})
    text = json.loads((tmp_path / "published" / "config.json").read_text())
    text["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]}
    (tmp_path / "published" / "config.json").write_text(json.dumps(text))
    ours = mw.Model.from_pretrained(tmp_path / "published", dtype="float32")
    ids = make_batch()
    assert_close(ours(ids), logits_of(theirs, ids))
    ours.save_pretrained(tmp_path / "kept", keep_quantized=True)
    assert_close(mw.Model.from_pretrained(tmp_path / "kept", dtype="float32")(ids), ours(ids))


def test_bare_names_of_gpt2(tmp_path) -> None:
    folder = save_model("gpt2", tmp_path)
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    tensors["h.0.attn.bias"] = torch.ones(1, 1, 128, 128).tril()  # the mask that old files carry
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    ids = make_batch()
    assert_close(mw.Model.from_pretrained(folder, dtype="float32")(ids), logits_of(make_model("gpt2"), ids))


def test_an_image_encoder_is_written_again_untouched(tmp_path) -> None:
    sizes = dict(hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16)
    text = transformers.Gemma3TextConfig(vocab_size=VOCAB, sliding_window=7, max_position_embeddings=128, **sizes)
    vision = transformers.SiglipVisionConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=56,
        patch_size=14,
        vision_use_head=False,
    )
    config = transformers.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_index=90)
    config._attn_implementation = "eager"
    theirs = transformers.Gemma3ForConditionalGeneration(config).eval()
    theirs.save_pretrained(tmp_path / "model")
    ours = mw.Model.from_pretrained(tmp_path / "model", dtype="float32")
    ids = make_batch().clamp(max=80)
    assert_close(ours(ids), logits_of(theirs, ids))
    ours.save_pretrained(tmp_path / "saved")
    index = json.loads((tmp_path / "saved" / "model.safetensors.index.json").read_text())["weight_map"]
    after = {name: tensor for file in set(index.values()) for name, tensor in load_file(tmp_path / "saved" / file).items()}
    before = load_file(tmp_path / "model" / "model.safetensors")
    assert before.keys() == after.keys() and all(torch.equal(tensor, after[name]) for name, tensor in before.items())


PEAK = """
import sys, meshwright as mw
def kilobytes(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key + ":"))
before = kilobytes("VmHWM")
model = mw.Model.from_pretrained(sys.argv[1])
# Pages of the file that are still mapped belong to the system's cache.
print(kilobytes("VmHWM") - before - kilobytes("RssFile"), model.dtype)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dense", "experts"])
def test_import_of_a_gigabyte_peaks_below_its_size_and_a_seventh(kind, tmp_path) -> None:
    fields = dict(
        embedding_dim=2048, num_layers=8, num_query_heads=16, num_kv_heads=4, head_dim=128, vocab_size=32000, max_position_embeddings=2048
    )
    if kind == "dense":
        config = mw.Model({"family": "llama", "mlp_dim": 8192, **fields}, dtype="bfloat16")
    else:
        moe = dict(num_experts=16, experts_per_token=2, normalize_topk_weights=True)
        config = mw.Model({"family": "mixtral", "mlp_dim": 512, "moe_mlp_dim": 512, "moe": moe, **fields}, dtype="bfloat16")
    config.save_pretrained(tmp_path)
    size = sum(file.stat().st_size for file in tmp_path.glob("*.safetensors"))
    assert size >= 1e9
    del config
    output = subprocess.run([sys.executable, "-c", PEAK, str(tmp_path)], capture_output=True, text=True, check=True).stdout.split()
    assert output[1] == "bfloat16"
    assert int(output[0]) * 1024 < 1.15 * size
