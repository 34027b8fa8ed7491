"""A small converter from Hugging Face folders to GGUF for tests, written from the rules in docs/formats/gguf.md. Names and keys come from
the package `gguf`, so that they do not rest on our own tables."""

import json
import math
import re

import gguf
import numpy as np
from gguf.quants import dequantize, quantize
from safetensors.torch import load_file

ARCH = {
    "LlamaForCausalLM": gguf.MODEL_ARCH.LLAMA,
    "MistralForCausalLM": gguf.MODEL_ARCH.LLAMA,
    "MixtralForCausalLM": gguf.MODEL_ARCH.LLAMA,
    "Llama4ForCausalLM": gguf.MODEL_ARCH.LLAMA4,
    "Qwen3ForCausalLM": gguf.MODEL_ARCH.QWEN3,
    "Qwen3MoeForCausalLM": gguf.MODEL_ARCH.QWEN3MOE,
    "GemmaForCausalLM": gguf.MODEL_ARCH.GEMMA,
    "Gemma2ForCausalLM": gguf.MODEL_ARCH.GEMMA2,
    "Gemma3ForCausalLM": gguf.MODEL_ARCH.GEMMA3,
    "DeepseekV2ForCausalLM": gguf.MODEL_ARCH.DEEPSEEK2,
    "DeepseekV3ForCausalLM": gguf.MODEL_ARCH.DEEPSEEK2,
    "GptOssForCausalLM": gguf.MODEL_ARCH.GPT_OSS,
    "GPT2LMHeadModel": gguf.MODEL_ARCH.GPT2,
}


def rope_pairs(rows, heads):
    """The two halves of every head's rows, taken in turn."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def llama3_factors(config, rope):
    dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    low, high, original = rope["low_freq_factor"], rope["high_freq_factor"], rope["original_max_position_embeddings"]
    factors = []
    for i in range(0, dim, 2):
        wave = 2 * math.pi * rope["rope_theta"] ** (i / dim)
        if wave < original / high:
            factors.append(1.0)
        elif wave > original / low:
            factors.append(rope["factor"])
        else:
            smooth = (original / wave - low) / (high - low)
            factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(factors, dtype=np.float32)


def parts_of(name, tensor, config, kind):
    """(name that `gguf` knows, array) of what the converter makes of one tensor; experts are stacked before."""
    if kind in ("MixtralForCausalLM", "LlamaForCausalLM", "MistralForCausalLM"):
        heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
        if "q_proj" in name:
            tensor = rope_pairs(tensor, heads)
        if "k_proj" in name:
            tensor = rope_pairs(tensor, groups)
    if kind.startswith("Gemma") and name.endswith("norm.weight"):
        tensor = tensor + np.float32(1)
    if kind.startswith("Deepseek") and name.endswith("kv_b_proj.weight"):
        nope, value = config["qk_nope_head_dim"], config["v_head_dim"]
        heads = tensor.reshape(config["num_attention_heads"], nope + value, -1)
        return [
            (name.replace("kv_b_proj", "k_b_proj"), heads[:, :nope].swapaxes(1, 2)),
            (name.replace("kv_b_proj", "v_b_proj"), heads[:, nope:]),
        ]
    if kind == "GptOssForCausalLM":
        if name.endswith("sinks"):
            return [(f"{name}.weight", tensor)]
        if name.endswith("gate_up_proj"):
            out = tensor.swapaxes(1, 2)
            stem = name[: -len("gate_up_proj")]
            return [(f"{stem}gate_proj.weight", out[:, ::2]), (f"{stem}up_proj.weight", out[:, 1::2])]
        if name.endswith("gate_up_proj_bias"):
            stem = name[: -len("gate_up_proj_bias")]
            return [(f"{stem}gate_proj.bias", tensor[:, ::2]), (f"{stem}up_proj.bias", tensor[:, 1::2])]
        if name.endswith("experts.down_proj"):
            return [(f"{name}.weight", tensor.swapaxes(1, 2))]
        if name.endswith("down_proj_bias"):
            return [(name.replace("down_proj_bias", "down_proj.bias"), tensor)]
    if kind == "Llama4ForCausalLM":
        if name.endswith("experts.gate_up_proj"):
            gate, up = np.split(tensor.swapaxes(1, 2), 2, axis=1)
            return [(name.replace("gate_up_proj", "gate_proj.weight"), gate), (name.replace("gate_up_proj", "up_proj.weight"), up)]
        if name.endswith("experts.down_proj"):
            return [(f"{name}.weight", tensor.swapaxes(1, 2))]
    if kind == "GPT2LMHeadModel" and re.search(r"\.(c_attn|c_proj|c_fc)\.weight$", name):
        tensor = tensor.T
    if name.endswith("e_score_correction_bias"):
        name = name.replace("e_score_correction_bias", "e_score_correction.bias")
    return [(name, tensor)]


def stack_experts(tensors):
    """Experts stored one by one as one tensor; Mixtral's under the name that `gguf` has for them."""
    stacks, rest = {}, {}
    for name, tensor in tensors.items():
        found = re.fullmatch(r"(.*)\.experts\.(\d+)\.(\w+)\.weight", name)
        if found:
            stacks.setdefault((found[1], found[3]), {})[int(found[2])] = tensor
        else:
            rest[name] = tensor
    for (stem, matrix), experts in stacks.items():
        merged = f"{stem}.experts.{matrix}.weight"
        if matrix in ("w1", "w2", "w3"):
            merged = f"layers.{re.search(r'layers.([0-9]+)', stem)[1]}.feed_forward.experts.{matrix}.weight"
        rest[merged] = np.stack([experts[i] for i in range(len(experts))])
    return rest


def put_keys(writer, config, kind, num_rows):
    if kind == "GPT2LMHeadModel":
        writer.add_block_count(config["n_layer"])
        writer.add_context_length(config["n_positions"])
        writer.add_embedding_length(config["n_embd"])
        writer.add_feed_forward_length(4 * config["n_embd"])
        writer.add_head_count(config["n_head"])
        writer.add_layer_norm_eps(config["layer_norm_epsilon"])
        return
    rope = config["rope_parameters"]
    rope = rope.get("full_attention", rope)
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size_mlp"] if kind == "Llama4ForCausalLM" else config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(rope["rope_theta"])
    if kind.startswith("Deepseek"):
        writer.add_head_count_kv(1)
        nope, turned, latent = config["qk_nope_head_dim"], config["qk_rope_head_dim"], config["kv_lora_rank"]
        writer.add_kv_lora_rank(latent)
        if config["q_lora_rank"]:
            writer.add_q_lora_rank(config["q_lora_rank"])
        writer.add_key_length(latent + turned)
        writer.add_value_length(latent)
        writer.add_key_length_mla(nope + turned)
        writer.add_value_length_mla(config["v_head_dim"])
        writer.add_rope_dimension_count(turned)
        writer.add_leading_dense_block_count(config["first_k_dense_replace"])
        writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
        writer.add_expert_count(config["n_routed_experts"])
        writer.add_expert_used_count(config["num_experts_per_tok"])
        writer.add_expert_shared_count(config["n_shared_experts"])
        writer.add_expert_weights_scale(config["routed_scaling_factor"])
        writer.add_expert_weights_norm(bool(config.get("norm_topk_prob")))
        writer.add_expert_group_count(config["n_group"])
        writer.add_expert_group_used_count(config["topk_group"])
        sigmoid = kind == "DeepseekV3ForCausalLM"
        writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID if sigmoid else gguf.ExpertGatingFuncType.SOFTMAX)
        if "mscale_all_dim" in rope:
            writer.add_rope_scaling_yarn_log_mul(0.1 * rope["mscale_all_dim"])
    else:
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
        writer.add_rope_dimension_count(head_dim)
        experts = config.get("num_local_experts") or config.get("num_experts")
        if experts:
            writer.add_expert_count(experts)
            writer.add_expert_used_count(config["num_experts_per_tok"])
        if kind == "Qwen3MoeForCausalLM":
            writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
        if kind in ("GptOssForCausalLM", "Llama4ForCausalLM"):
            writer.add_expert_feed_forward_length(config["intermediate_size"])
        if kind == "Llama4ForCausalLM":
            writer.add_interleave_moe_layer_step(config["interleave_moe_layer_step"])
        if kind in ("Gemma2ForCausalLM", "Gemma3ForCausalLM", "GptOssForCausalLM"):
            writer.add_sliding_window(config["sliding_window"])
        if kind == "Gemma2ForCausalLM":
            writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
            writer.add_final_logit_softcapping(config["final_logit_softcapping"])
    if rope["rope_type"] in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(rope["factor"])
        if rope["rope_type"] == "yarn":
            writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if rope["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_factors(config, rope))
    if kind != "Gemma3ForCausalLM":
        writer.add_vocab_size(num_rows)


def convert(folder, path, quantization=gguf.GGMLQuantizationType.F32):
    """Writes the model of a folder as one GGUF file. Returns name -> what is stored (GGUF's name and order), decoded."""
    config = json.loads((folder / "config.json").read_text())
    kind = config["architectures"][0]
    arch = ARCH[kind]
    tensors = {name: tensor.float().numpy() for name, tensor in load_file(folder / "model.safetensors").items()}
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[arch])
    names = gguf.get_tensor_name_map(arch, config.get("num_hidden_layers", config.get("n_layer")))
    table = next(tensor for name, tensor in tensors.items() if name.endswith(("embed_tokens.weight", "wte.weight")))
    put_keys(writer, config, kind, len(table))
    for special, number in (("bos", "bos_token_id"), ("eos", "eos_token_id")):
        if config.get(number) is not None:
            getattr(writer, f"add_{special}_token_id")(config[number])
    stored = {}
    for name, tensor in stack_experts(tensors).items():
        if name == "lm_head.weight" and (kind.startswith("Gemma") or kind == "GPT2LMHeadModel"):
            continue
        for part, values in parts_of(name, tensor, config, kind):
            ours = names.get_name(part, try_suffixes=(".weight", ".bias"))
            assert ours is not None, f"gguf has no name for {part}"
            values = np.ascontiguousarray(values, dtype=np.float32)
            how = (
                quantization
                if values.ndim >= 2 and values.shape[-1] % 32 == 0 and "ffn_gate_inp" not in ours
                else gguf.GGMLQuantizationType.F32
            )
            packed = quantize(values, how)
            writer.add_tensor(ours, packed, raw_dtype=how)
            stored[ours] = dequantize(packed, how).reshape(values.shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return stored
