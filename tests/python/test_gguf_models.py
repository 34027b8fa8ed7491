"""GGUF files of every architecture read back under Hugging Face's names: the tensors that the folder had, and a config.json with which
transformers computes the same."""

import json

import gguf
import numpy as np
import pytest
import torch
import transformers
from gguf_conversion import convert, rope_pairs
from meshwright import UserError, _core
from safetensors.torch import load_file
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

BASE = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
    "use_cache": False,
}
LLAMA3 = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
YARN = {"rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096, "beta_fast": 32.0, "beta_slow": 1.0}
MLA = {
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 24,
    "moe_intermediate_size": 32,
    "n_routed_experts": 8,
    "n_shared_experts": 2,
    "num_experts_per_tok": 3,
    "first_k_dense_replace": 1,
    "num_key_value_heads": 4,
}
CASES = {
    "llama": ("Llama", {"rope_theta": 10000.0, "rms_norm_eps": 1e-5}),
    "llama-3.2": ("Llama", {"rope_theta": 5e5, "rope_scaling": LLAMA3, "head_dim": 32, "tie_word_embeddings": True}),
    "mistral": ("Mistral", {"sliding_window": None, "rope_theta": 1e6, "head_dim": 16}),
    "mixtral": ("Mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None, "head_dim": 16}),
    "qwen3": ("Qwen3", {"head_dim": 24, "tie_word_embeddings": True, "rope_theta": 1e6}),
    "qwen3-moe": (
        "Qwen3Moe",
        {"head_dim": 24, "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "norm_topk_prob": True},
    ),
    "gemma": ("Gemma", {"head_dim": 32}),
    "gemma2": ("Gemma2", {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 8}),
    "gemma3": ("Gemma3Text", {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 8, "num_hidden_layers": 7}),
    "gemma3-linear": (
        "Gemma3Text",
        {
            "head_dim": 32,
            "query_pre_attn_scalar": 32,
            "sliding_window": 8,
            "num_hidden_layers": 7,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
        },
    ),
    "deepseek-v2-lite": ("DeepseekV2", MLA | {"q_lora_rank": None, "n_group": 1, "topk_group": 1, "topk_method": "greedy"}),
    "deepseek-v2": (
        "DeepseekV2",
        MLA
        | {
            "q_lora_rank": 24,
            "n_group": 4,
            "topk_group": 2,
            "topk_method": "group_limited_greedy",
            "routed_scaling_factor": 16.0,
            "rope_scaling": YARN | {"mscale": 0.707, "mscale_all_dim": 0.707},
        },
    ),
    "deepseek-v3": (
        "DeepseekV3",
        MLA
        | {
            "q_lora_rank": 24,
            "n_group": 4,
            "topk_group": 2,
            "norm_topk_prob": True,
            "rope_scaling": YARN | {"mscale": 1.0, "mscale_all_dim": 1.0},
        },
    ),
    "gpt-oss": (
        "GptOss",
        {
            "head_dim": 16,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "sliding_window": 8,
            "num_hidden_layers": 4,
            "rope_theta": 150000.0,
            "rope_scaling": YARN | {"truncate": False},
        },
    ),
    "gpt2": ("GPT2", {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": 96, "bos_token_id": 1, "eos_token_id": 2}),
    "llama4": (
        "Llama4Text",
        {
            "head_dim": 16,
            "intermediate_size_mlp": 128,
            "num_local_experts": 4,
            "num_experts_per_tok": 1,
            "interleave_moe_layer_step": 2,
            "num_hidden_layers": 4,
            "rope_theta": 5e5,
            "rope_parameters": LLAMA3 | {"factor": 16.0, "high_freq_factor": 1.0, "rope_theta": 5e5},
            "moe_layers": None,
        },
    ),
}


def class_of(kind):
    name = {"GPT2": "GPT2LMHeadModel"}.get(kind, kind.removesuffix("Text") + "ForCausalLM")
    return getattr(transformers, name), getattr(transformers, kind + "Config")


def make_folder(case, folder):
    kind, changes = CASES[case]
    model_class, config_class = class_of(kind)
    torch.manual_seed(sum(map(ord, case)))
    config = config_class(**(changes if kind == "GPT2" else BASE | changes))
    model = model_class(config).float().eval()
    with torch.no_grad():
        for parameter in [*model.parameters(), *(b for n, b in model.named_buffers() if n.endswith("correction_bias"))]:
            parameter.copy_(torch.randn_like(parameter) * 0.2 + (0.5 if parameter.dim() == 1 else 0))
    model.save_pretrained(folder)
    return model


@pytest.fixture(scope="module", params=CASES)
def converted(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    model = make_folder(request.param, folder)
    path = folder / "model.gguf"
    convert(folder, path)
    return request.param, model, folder, str(path)


def test_tensors_are_those_of_the_folder(converted):
    case, _, folder, path = converted
    theirs = load_file(folder / "model.safetensors")
    ours = {row["name"]: row for row in _core.list_weights(path)}
    assert ours.keys() == theirs.keys()
    generator = np.random.default_rng(0)
    for name, expected in theirs.items():
        assert ours[name]["shape"] == tuple(expected.shape), name
        read = torch.from_numpy(_core.read_tensor(path, name, "float32"))
        if case.startswith("gemma") and name.endswith("norm.weight"):
            torch.testing.assert_close(read, expected, rtol=0, atol=2**-22, msg=name)  # w + 1 has lost bits of w
        else:
            assert torch.equal(read, expected), name
        for _ in range(3):
            pairs = [sorted(generator.integers(0, size + 1, 2).tolist()) for size in expected.shape]
            part = torch.from_numpy(_core.read_tensor(path, name, "float32", [b for b, _ in pairs], [e for _, e in pairs]))
            assert torch.equal(part, read[tuple(slice(b, e) for b, e in pairs)]), (name, pairs)


def test_config_makes_the_same_model(converted, tmp_path):
    case, model, folder, path = converted
    config = json.loads(_core.gguf_config(path))
    if case == "mistral":  # a GGUF file calls it llama, and without a window it is one
        assert config["architectures"] == ["LlamaForCausalLM"]
    else:
        assert config["architectures"] == [type(model).__name__]
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (1, 2, None)
    if case in ("llama", "llama-3.2", "mistral", "qwen3"):  # families of ours: the config is one that we read
        assert _core.model_costs(json.dumps(config), 16.0)["num_parameters"] == model.num_parameters()
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").symlink_to(folder / "model.safetensors")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    ids = torch.from_numpy(np.random.default_rng(1).integers(0, 96, (2, 40)))
    with torch.no_grad():
        assert torch.equal(again(ids).logits, model(ids).logits)


@pytest.mark.parametrize("case", ["llama", "llama-3.2", "qwen3", "gemma2", "gemma3"])
def test_transformers_reads_the_same_from_the_file(case, tmp_path):
    """Its own GGUF loader has nothing in common with ours, and not with the converter of these tests."""
    model = make_folder(case, tmp_path)
    path = str(tmp_path / "model.gguf")
    convert(tmp_path, path, gguf.GGMLQuantizationType.Q8_0)
    theirs = load_gguf_checkpoint(path, return_tensors=True, model_to_load=model)["tensors"]
    rows = _core.list_weights(path)
    assert len(rows) == len(theirs.keys() & {row["name"] for row in rows}) > 20
    for row in rows:
        read = torch.from_numpy(_core.read_tensor(path, row["name"], "float32"))
        assert torch.equal(read, theirs[row["name"]]), row["name"]


def test_quantised_rows_are_put_back(tmp_path):
    make_folder("llama", tmp_path)
    path = tmp_path / "model.gguf"
    stored = convert(tmp_path, path, gguf.GGMLQuantizationType.Q4_0)
    for ours, theirs, heads in [("q_proj", "attn_q", 4), ("k_proj", "attn_k", 2)]:
        read = _core.read_tensor(str(path), f"model.layers.1.self_attn.{ours}.weight", "float32")
        np.testing.assert_array_equal(rope_pairs(read, heads), stored[f"blk.1.{theirs}.weight"])


def test_rope_factors_of_another_rule_are_refused(tmp_path):
    make_folder("llama-3.2", tmp_path)
    path = tmp_path / "model.gguf"
    config = json.loads((tmp_path / "config.json").read_text())
    config["rope_parameters"]["original_max_position_embeddings"] = 4096
    (tmp_path / "config.json").write_text(json.dumps(config))
    convert(tmp_path, path)
    with pytest.raises(UserError, match=r"rope_freqs.weight': expected the factors of Llama 3's rope .* which these are not"):
        _core.gguf_config(str(path))
