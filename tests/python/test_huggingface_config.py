"""config.json of every class, both ways with transformers: what it writes is read, what we write it reads to the same values, and the
tensors of a saved model are those of our parameter lists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import meshwright as mw
import pytest
import torch
import transformers
from meshwright import _core
from meshwright.packaged import configs_folder
from safetensors import safe_open

SIZES: dict[str, Any] = dict(
    vocab_size=96,
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=4,
    num_attention_heads=6,
    num_key_value_heads=2,
    max_position_embeddings=128,
    rms_norm_eps=1e-5,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
)
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 10000.0}
DEEPSEEK: dict[str, Any] = dict(
    num_key_value_heads=6,
    n_routed_experts=8,
    num_experts_per_tok=3,
    moe_intermediate_size=20,
    kv_lora_rank=16,
    qk_nope_head_dim=8,
    qk_rope_head_dim=4,
    v_head_dim=6,
    first_k_dense_replace=1,
)
GPT2: dict[str, Any] = dict(vocab_size=96, n_embd=48, n_layer=3, n_head=6, n_positions=64, bos_token_id=1, eos_token_id=2)
IMAGES: dict[str, Any] = dict(hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=8)

# name -> (model type, its settings)
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", dict(SIZES, rope_parameters=YARN | {"attention_factor": 1.5, "beta_fast": 16.0})),
    "llama_biases": ("llama", dict(SIZES, attention_bias=True, mlp_bias=True, head_dim=10)),
    "mistral": ("mistral", dict(SIZES, sliding_window=7)),
    "qwen3": ("qwen3", dict(SIZES, head_dim=10, use_sliding_window=True, sliding_window=9, max_window_layers=2)),
    "mixtral": ("mixtral", dict(SIZES, num_local_experts=5, router_aux_loss_coef=0.02, output_router_logits=True)),
    "mixtral_window": ("mixtral", dict(SIZES, num_local_experts=5, sliding_window=7, head_dim=10)),
    "qwen3_moe": (
        "qwen3_moe",
        dict(
            SIZES, num_experts=6, num_experts_per_tok=3, moe_intermediate_size=20, norm_topk_prob=True, decoder_sparse_step=2, head_dim=10
        ),
    ),
    "qwen3_moe_window": (
        "qwen3_moe",
        dict(SIZES, num_experts=6, num_experts_per_tok=3, moe_intermediate_size=20, use_sliding_window=True, sliding_window=9),
    ),
    "gemma": ("gemma", dict(SIZES, head_dim=12)),
    "gemma2": ("gemma2", dict(SIZES, head_dim=12, query_pre_attn_scalar=17, sliding_window=5)),
    "gemma2_plain": (
        "gemma2",
        dict(
            SIZES,
            head_dim=16,
            query_pre_attn_scalar=16,
            sliding_window=None,
            final_logit_softcapping=None,
            attn_logit_softcapping=None,
            layer_types=["full_attention"] * 4,
        ),
    ),
    "gemma3": ("gemma3_text", dict(SIZES, head_dim=12, sliding_window=5, sliding_window_pattern=3)),
    "gemma3_old": (
        "gemma3_text",
        dict(
            SIZES,
            head_dim=12,
            sliding_window=5,
            rope_scaling={"rope_type": "linear", "factor": 8.0},
            rope_theta=5e5,
            rope_local_base_freq=2e4,
        ),
    ),
    "gemma3_images": (
        "gemma3",
        dict(
            text_config=dict(SIZES, head_dim=12, sliding_window=5),
            vision_config=dict(IMAGES, vision_use_head=False, model_type="siglip_vision_model"),
            mm_tokens_per_image=4,
        ),
    ),
    "deepseek2": (
        "deepseek_v2",
        SIZES | DEEPSEEK | dict(q_lora_rank=None, rope_parameters=YARN | {"mscale": 0.707, "mscale_all_dim": 0.707}),
    ),
    "deepseek2_groups": (
        "deepseek_v2",
        SIZES | DEEPSEEK | dict(q_lora_rank=12, n_group=4, topk_group=2, topk_method="group_limited_greedy", routed_scaling_factor=16.0),
    ),
    "deepseek3": ("deepseek_v3", SIZES | DEEPSEEK | dict(q_lora_rank=12, n_group=4, topk_group=2, num_mtp_layers=0)),
    "gpt_oss": ("gpt_oss", dict(SIZES, head_dim=10, num_local_experts=5, num_experts_per_tok=2, sliding_window=6)),
    "gpt_oss_plain_rope": (
        "gpt_oss",
        dict(
            SIZES,
            head_dim=10,
            num_local_experts=5,
            num_experts_per_tok=2,
            sliding_window=6,
            swiglu_limit=5.0,
            rope_parameters={"rope_type": "default", "rope_theta": 1e4},
        ),
    ),
    "llama4": (
        "llama4_text",
        dict(
            SIZES,
            head_dim=10,
            num_local_experts=5,
            intermediate_size_mlp=90,
            attention_chunk_size=8,
            interleave_moe_layer_step=2,
            floor_scale=16,
            attn_scale=0.2,
        ),
    ),
    "llama4_plain": (
        "llama4_text",
        dict(
            SIZES,
            head_dim=10,
            num_local_experts=5,
            num_experts_per_tok=2,
            use_qk_norm=False,
            attn_temperature_tuning=False,
            no_rope_layers=[1, 0, 1, 0],
            attention_chunk_size=None,
        ),
    ),
    "llama4_images": (
        "llama4",
        dict(
            text_config=dict(SIZES, head_dim=10, num_local_experts=5),
            vision_config=dict(IMAGES, projector_input_dim=16, projector_output_dim=16, vision_output_dim=16),
        ),
    ),
    "gpt2": ("gpt2", GPT2),
    "gpt2_own": ("gpt2", GPT2 | dict(n_inner=70, activation_function="relu", tie_word_embeddings=False, scale_attn_weights=False)),
}
# What we do not keep: dropout, and derived values that stand for themselves.
NOT_KEPT = {"transformers_version", "_name_or_path", "architectures", "dtype", "resid_pdrop", "embd_pdrop", "attn_pdrop"}
SPELLED_OUT: dict[str, dict[str, Any]] = {
    "mixtral": {"head_dim": 8},
    "deepseek2": {"n_group": 1, "topk_group": 1},
    "deepseek2_groups": {},
    "gpt2": {"n_inner": 192},
}


def make_config(name: str) -> transformers.PretrainedConfig:
    model_type, settings = CASES[name]
    return transformers.AutoConfig.for_model(model_type, **json.loads(json.dumps(settings)))


def read_back(text: str, folder: Path) -> transformers.PretrainedConfig:
    (folder / "config.json").write_text(text)
    return transformers.AutoConfig.from_pretrained(folder)


def differences(a: dict[str, Any], b: dict[str, Any], path: str = "") -> list[tuple[str, Any, Any]]:
    found = []
    for key, value in a.items():
        other = b.get(key, "absent")
        if key in NOT_KEPT:
            continue
        if isinstance(value, dict) and isinstance(other, dict):
            found += differences(value, other, f"{path}{key}.")
        elif value != other:
            found.append((path + key, value, other))
    return found


@pytest.mark.parametrize("name", sorted(CASES))
def test_what_transformers_writes_is_read_and_written_back(name, tmp_path):
    theirs = make_config(name)
    written = theirs.to_dict()
    ours = _core.parse_model_config(json.dumps(written), "config.json")
    text = _core.huggingface_config_text(ours, "float32")
    assert json.loads(_core.parse_model_config(text, "config.json")) == json.loads(ours)
    expected = SPELLED_OUT.get(name, {})
    assert differences(written, read_back(text, tmp_path).to_dict()) == [(key, written[key], value) for key, value in expected.items()]


@pytest.mark.parametrize("name", sorted(CASES))
def test_parameters_are_the_tensors_of_a_saved_model(name, tmp_path):
    config = make_config(name)
    multimodal = hasattr(config, "text_config")
    kind = transformers.AutoModelForImageTextToText if multimodal else transformers.AutoModelForCausalLM
    with torch.no_grad():
        kind.from_config(config).save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        theirs = {key: list(file.get_slice(key).get_shape()) for key in file.keys()}
    if multimodal:
        theirs = {key: shape for key, shape in theirs.items() if key.startswith("language_model.")}
    ours = _core.parse_model_config((tmp_path / "config.json").read_text(), "config.json")
    assert {name: list(shape) for name, shape in _core.parameter_tensors(ours)} == theirs


def published() -> list[str]:
    return [path.stem for path in sorted((configs_folder() / "models").glob("*.json"))]


@pytest.mark.parametrize("name", published())
def test_transformers_reads_what_we_write_and_counts_the_same_parameters(name, tmp_path):
    _, ours = _core.find_model_config(name, str(configs_folder() / "models"))
    fields = json.loads(ours)
    config = read_back(_core.huggingface_config_text(ours, "bfloat16"), tmp_path)
    text = config.get_text_config()
    for theirs, own in {
        "hidden_size": "embedding_dim",
        "num_hidden_layers": "num_layers",
        "num_attention_heads": "num_query_heads",
        "vocab_size": "vocab_size",
        "max_position_embeddings": "max_position_embeddings",
        "eos_token_id": "eos_token_id",
    }.items():
        assert getattr(text, theirs) == fields[own], theirs
    kind = transformers.AutoModelForImageTextToText if fields["vision"] else transformers.AutoModelForCausalLM
    with torch.device("meta"):
        model = kind.from_config(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == mw.count_parameters(name)


def test_quantised_files_are_accepted_where_import_multiplies_them_out():
    written = make_config("deepseek3").to_dict()
    fp8 = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
    plain = _core.parse_model_config(json.dumps(written), "config.json")
    assert _core.parse_model_config(json.dumps(written | {"quantization_config": fp8}), "config.json") == plain
    oss = make_config("gpt_oss").to_dict() | {"quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}}
    _core.parse_model_config(json.dumps(oss), "config.json")
    for wrong, message in [
        ({"quant_method": "mxfp4"}, "quant_method: expected .* 'fp8' .*, found \"mxfp4\""),
        ({"quant_method": "gptq", "bits": 4}, 'quant_method: expected .* found "gptq"'),
        ({**fp8, "fmt": "e5m2"}, "fmt: expected 'e4m3', found \"e5m2\""),
        ({**fp8, "activation_scheme": "static"}, "activation_scheme: expected 'dynamic'"),
        ({**fp8, "weight_block_size": None}, r"weight_block_size: expected two sizes, such as \[128, 128\], found null"),
    ]:
        with pytest.raises(mw.UserError, match=message):
            _core.parse_model_config(json.dumps(written | {"quantization_config": wrong}), "config.json")
