"""Terms of the loss beside the loss per token, and multi-token prediction, against transformers and a short PyTorch reference."""

from __future__ import annotations

import json

import meshwright as mw
import numpy as np
import pytest
import torch
import transformers
from parity.reference_models import DEEPSEEK, SIZES, VOCAB, make_batch, make_model, save_model
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3DecoderLayer, DeepseekV3RotaryEmbedding

MTP_LAYERS = 2


@pytest.mark.parametrize("case", ["mixtral", "qwen3_moe", "gpt_oss"])
def test_load_balance_loss_as_transformers_adds_it(case, tmp_path) -> None:
    theirs = make_model(case)
    ids = make_batch(seed=5)
    mask = torch.ones_like(ids)
    mask[1, -6:] = 0
    labels = ids.masked_fill(mask == 0, -100)
    expected = theirs(input_ids=ids, labels=labels, attention_mask=mask, output_router_logits=True)
    plain = theirs(input_ids=ids, labels=labels, attention_mask=mask, output_router_logits=False)
    weight = float((expected.loss - plain.loss) / expected.aux_loss)
    expected.loss.backward()
    router = {"mixtral": "block_sparse_moe.gate", "qwen3_moe": "mlp.gate", "gpt_oss": "mlp.router"}[case]
    gate = {n.rsplit(".mlp.", 1)[0]: p.grad for n, p in theirs.named_parameters() if n.endswith(("mlp.gate.weight", "mlp.router.weight"))}
    ours = mw.Model.from_pretrained(save_model(case, tmp_path), dtype="float32")
    loss, gradients = ours.loss_and_gradients(
        {"input_ids": ids, "labels": labels, "attention_mask": mask}, losses=mw.Losses(load_balance=weight)
    )
    assert abs(loss - expected.loss.item()) <= 1e-5 * loss
    assert len(gate) == 3
    for layer, gradient in gate.items():
        mine = gradients[f"{layer}.{router}.weight"]
        assert np.abs(mine - gradient.numpy()).max() <= 1e-3 * gradient.abs().max().item(), layer


def test_balance_is_off_by_default_and_on_where_the_configuration_asks(tmp_path) -> None:
    folder = save_model("mixtral", tmp_path)
    batch = {"input_ids": make_batch()}
    model = mw.Model.from_pretrained(folder, dtype="float32")
    plain = model.loss(batch)
    assert model.loss_and_gradients(batch)[0] == pytest.approx(plain, rel=1e-6)
    trainer = mw.Trainer(model, mw.SGD(lr=0.0), show=False)
    assert trainer.step(batch).terms == {}
    config = json.loads((folder / "config.json").read_text()) | {"output_router_logits": True, "router_aux_loss_coef": 0.5}
    (folder / "config.json").write_text(json.dumps(config))
    metrics = mw.Trainer(mw.Model.from_pretrained(folder, dtype="float32"), mw.SGD(lr=0.0), show=False).step(batch)
    assert metrics["token_loss"] == pytest.approx(plain, rel=1e-6)
    assert metrics.loss == pytest.approx(plain + 0.5 * metrics["balance_loss"], rel=1e-6)


def reference_losses(logits: torch.Tensor, indices: torch.Tensor, experts: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of one layer, logits [batch, seq, experts]: the per-sequence balance of DeepSeek-V3 (eq. 17-20), the router's z-loss, the load."""
    scores = torch.sigmoid(logits)
    k = indices.shape[-1]
    chosen = functional.one_hot(indices, experts).sum(-2).float()
    share = chosen.mean(1) * experts / k
    likely = (scores / scores.sum(-1, keepdim=True)).mean(1)
    return (share * likely).sum(-1).mean(), torch.logsumexp(logits, -1).square().mean(), chosen.sum((0, 1))


@pytest.fixture(scope="module")
def routed(tmp_path_factory):
    """A DeepSeek V3 model, ours of the same weights, a batch, and what its routers see and choose there."""
    theirs = make_model("deepseek_v3")
    seen = []
    for layer in theirs.model.layers[1:]:
        layer.mlp.gate.register_forward_hook(lambda _, __, out: seen.append(out))
    ids = make_batch(seed=7)
    with torch.no_grad():
        theirs(ids)
    folder = save_model("deepseek_v3", tmp_path_factory.mktemp("models"))
    return ids, seen, folder


def test_sequence_balance_router_z_and_load(routed) -> None:
    ids, seen, folder = routed
    losses = mw.Losses(sequence_balance=0.25, router_z=0.125, expert_load=True)
    metrics = mw.Trainer(mw.Model.from_pretrained(folder, dtype="float32"), mw.SGD(lr=0.0), losses=losses, show=False).step(
        {"input_ids": ids}
    )
    balance = z = 0.0
    for layer, (logits, *_, indices) in enumerate(seen, start=1):
        expected = reference_losses(logits.view(*ids.shape, -1).float(), indices.view(*ids.shape, -1), 8)
        balance, z = balance + expected[0].item(), z + expected[1].item()
        assert list(metrics.expert_load[f"layers.{layer}"]) == expected[2].tolist()
    assert metrics["sequence_balance_loss"] == pytest.approx(balance, rel=1e-5)
    assert metrics["router_z_loss"] == pytest.approx(z, rel=1e-5)
    assert metrics.loss == pytest.approx(metrics["token_loss"] + 0.25 * balance + 0.125 * z, rel=1e-5)
    assert metrics.to_dict()["expert_imbalance.layers.1"] >= 1.0


@pytest.mark.parametrize("mesh", [None, {"fsdp": 2}, {"data": 2, "tensor": 2}])
@pytest.mark.parametrize("microbatches", [1, 2])
def test_selection_bias_moves_towards_an_even_load(routed, mesh, microbatches) -> None:
    ids, _, folder = routed
    ids = torch.cat([ids, ids.flip(0)[:1]])
    model = mw.Model.from_pretrained(folder, dtype="float32")
    name = "model.layers.1.mlp.gate.e_score_correction_bias"
    before = model.state_dict()[name].gather()
    losses = mw.Losses(selection_bias_rate=0.01, expert_load=True)
    trainer = mw.Trainer(model, mw.SGD(lr=0.0), losses=losses, mesh=mesh, microbatches=microbatches, show=False)
    load = np.array(trainer.step({"input_ids": ids}).expert_load["layers.1"])
    assert load.sum() == ids.numel() * 3
    expected = before + np.float32(0.01) * np.sign(load.mean() - load).astype(np.float32)
    assert np.allclose(model.state_dict()[name].gather(), expected, atol=1e-7)


def test_terms_that_the_model_has_no_part_for_are_refused() -> None:
    with pytest.raises(mw.UserError, match="router_z_loss_weight is 0.1, but the model has no experts"):
        mw.Trainer(mw.Model("tiny"), mw.SGD(lr=0.1), losses=mw.Losses(router_z=0.1), show=False)
    with pytest.raises(mw.UserError, match="mtp_loss_weight is 0.3, but the model has no multi-token prediction"):
        mw.Model("tiny").loss_and_gradients({"input_ids": np.zeros((1, 4), np.int64)}, mw.Losses(mtp=0.3))


# ---- multi-token prediction ----


class MtpModule(torch.nn.Module):
    """DeepSeek-V3 2024, eq. 21-23: h' = block(W [RMSNorm(Emb(t)); RMSNorm(h)])."""

    def __init__(self, config: transformers.DeepseekV3Config, layer: int) -> None:
        super().__init__()
        self.enorm = torch.nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.hnorm = torch.nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.eh_proj = torch.nn.Linear(2 * config.hidden_size, config.hidden_size, bias=False)
        self.block = DeepseekV3DecoderLayer(config, layer)
        self.norm = torch.nn.RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, embedded, hidden, mask, positions):
        x = self.eh_proj(torch.cat([self.enorm(embedded), self.hnorm(hidden)], -1))
        out = self.block(x, attention_mask=mask, position_embeddings=positions)
        return out[0] if isinstance(out, tuple) else out


def file_names(module: MtpModule, layer: int) -> dict[str, torch.nn.Parameter | torch.Tensor]:
    """The module's tensors under the names of the published files; experts one by one."""
    at = f"model.layers.{layer}."
    tensors = {at + "enorm.weight": module.enorm.weight, at + "hnorm.weight": module.hnorm.weight}
    tensors |= {at + "eh_proj.weight": module.eh_proj.weight, at + "shared_head.norm.weight": module.norm.weight}
    for name, tensor in [*module.block.named_parameters(), *module.block.named_buffers()]:
        tensors[at + name] = tensor
    return tensors


def unstack(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    out = {}
    for name, tensor in tensors.items():
        if name.endswith("experts.gate_up_proj"):
            for e, both in enumerate(tensor):
                gate, up = both.chunk(2)
                out[name.replace("gate_up_proj", f"{e}.gate_proj.weight")] = gate
                out[name.replace("gate_up_proj", f"{e}.up_proj.weight")] = up
        elif name.endswith("experts.down_proj"):
            out |= {name.replace("down_proj", f"{e}.down_proj.weight"): one for e, one in enumerate(tensor)}
        else:
            out[name] = tensor
    return out


@pytest.fixture(scope="module")
def with_mtp(tmp_path_factory):
    """A folder with two prediction modules as they are published, and the reference's parts."""
    folder = save_model("deepseek_v3", tmp_path_factory.mktemp("models"))
    model = make_model("deepseek_v3")
    generator = torch.Generator().manual_seed(11)
    modules = []
    for depth in range(MTP_LAYERS):
        module = MtpModule(model.config, SIZES["num_hidden_layers"] + depth)
        with torch.no_grad():
            for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
                noise = torch.randn(tensor.shape, generator=generator)
                tensor.copy_(1 + 0.3 * noise if "norm" in name else 0.1 * noise if tensor.ndim == 1 else noise * tensor.shape[-1] ** -0.5)
        modules.append(module)
    tensors = load_file(folder / "model.safetensors")
    for depth, module in enumerate(modules):
        at = f"model.layers.{SIZES['num_hidden_layers'] + depth}."
        tensors |= unstack({n: t.detach().clone() for n, t in file_names(module, SIZES["num_hidden_layers"] + depth).items()})
        tensors[at + "embed_tokens.weight"] = tensors["model.embed_tokens.weight"].clone()
        tensors[at + "shared_head.head.weight"] = tensors["lm_head.weight"].clone()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text()) | {"num_nextn_predict_layers": MTP_LAYERS}
    (folder / "config.json").write_text(json.dumps(config))
    return folder, model, modules, tensors


def reference_mtp_loss(model, modules, ids: torch.Tensor) -> torch.Tensor:
    positions = torch.arange(ids.shape[1]).expand_as(ids)
    angles = DeepseekV3RotaryEmbedding(model.config)(model.model.embed_tokens(ids), positions)
    mask = torch.full((ids.shape[1],) * 2, float("-inf")).triu(1)[None, None]
    hidden = model.model(ids).last_hidden_state
    losses = []
    for depth, module in enumerate(modules, start=1):
        # Position i has the token i + depth, and predicts the one behind it.
        further = torch.cat([ids[:, depth:], torch.zeros_like(ids[:, :depth])], 1)
        hidden = module(model.model.embed_tokens(further), hidden, mask, angles)
        logits = model.lm_head(module.norm(hidden))[:, : -depth - 1]
        losses.append(functional.cross_entropy(logits.reshape(-1, VOCAB), ids[:, depth + 1 :].reshape(-1)))
    return sum(losses) / len(losses)


def test_mtp_loss_and_every_gradient(with_mtp) -> None:
    folder, model, modules, _ = with_mtp
    ids = make_batch(seed=13)
    ours = mw.Model.from_pretrained(folder, dtype="float32")
    assert ours.config.mtp_layers == MTP_LAYERS
    main = model(input_ids=ids, labels=ids).loss
    expected = main + 0.3 * reference_mtp_loss(model, modules, ids)
    model.zero_grad()
    expected.backward()
    loss, gradients = ours.loss_and_gradients({"input_ids": ids}, mw.Losses(mtp=0.3))
    assert abs(loss - expected.item()) <= 1e-5 * loss
    wanted = {"model.embed_tokens.weight": model.model.embed_tokens.weight.grad, "lm_head.weight": model.lm_head.weight.grad}
    wanted["model.norm.weight"] = model.model.norm.weight.grad
    for depth, module in enumerate(modules):
        layer = SIZES["num_hidden_layers"] + depth
        tensors = {n: t.grad for n, t in file_names(module, layer).items() if not n.endswith("e_score_correction_bias")}
        wanted |= unstack({n: torch.zeros(1) if g is None else g for n, g in tensors.items()})
    for name, gradient in wanted.items():
        difference = np.abs(gradients[name] - gradient.numpy()).max()
        assert difference <= 1e-3 * gradient.abs().max().item(), (name, difference)


def test_mtp_is_trained_logged_and_left_out_of_evaluation(with_mtp) -> None:
    folder, model, modules, _ = with_mtp
    ids = make_batch(seed=13)
    trainer = mw.Trainer(mw.Model.from_pretrained(folder, dtype="float32"), mw.SGD(lr=0.0), show=False)
    metrics = trainer.step({"input_ids": ids})
    with torch.no_grad():
        main, further = model(input_ids=ids, labels=ids).loss.item(), reference_mtp_loss(model, modules, ids).item()
    assert metrics["token_loss"] == pytest.approx(main, rel=1e-5)
    assert metrics["mtp_loss"] == pytest.approx(further, rel=1e-5)
    assert metrics.loss == pytest.approx(main + 0.3 * further, rel=1e-5)
    assert trainer.evaluate([{"input_ids": ids}]).loss == pytest.approx(main, rel=1e-5)


def test_mtp_on_a_mesh_and_in_microbatches(with_mtp) -> None:
    folder, *_ = with_mtp
    ids = make_batch(4, 20, seed=17)
    alone = mw.Trainer(mw.Model.from_pretrained(folder, dtype="float32"), mw.SGD(lr=0.1), show=False)
    arguments = dict(mesh={"fsdp": 2, "tensor": 2}, microbatches=2, show=False)
    together = mw.Trainer(mw.Model.from_pretrained(folder, dtype="float32"), mw.SGD(lr=0.1), **arguments)
    for _ in range(2):
        a, b = alone.step({"input_ids": ids}), together.step({"input_ids": ids})
        assert b.loss == pytest.approx(a.loss, rel=1e-5) and b["mtp_loss"] == pytest.approx(a["mtp_loss"], rel=1e-5)


def test_mtp_is_kept_on_import_and_export(with_mtp, tmp_path) -> None:
    folder, model, _, tensors = with_mtp
    mw.Model.from_pretrained(folder, dtype="float32").save_pretrained(tmp_path / "saved")
    index = json.loads((tmp_path / "saved" / "model.safetensors.index.json").read_text())["weight_map"]
    saved: dict[str, torch.Tensor] = {}
    for file in set(index.values()):
        saved |= load_file(tmp_path / "saved" / file)
    assert saved.keys() == tensors.keys()
    assert all(torch.equal(saved[name], tensor) for name, tensor in tensors.items())
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "saved", dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        assert torch.equal(again(make_batch()).logits, model(make_batch()).logits)


def test_copies_that_differ_are_refused(with_mtp, tmp_path) -> None:
    folder, *_ = with_mtp
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.4.shared_head.head.weight"][3, 5] += 1
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(mw.UserError, match=r"model.layers.4.shared_head.head.weight differs from lm_head.weight"):
        mw.Model.from_pretrained(tmp_path)


def test_deepseek_settings_are_those_of_the_cases() -> None:
    assert DEEPSEEK["n_routed_experts"] == 8
