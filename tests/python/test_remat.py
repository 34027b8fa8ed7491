"""Rematerialisation policies by name, what they hold, and `auto`."""

from __future__ import annotations

import meshwright as mw
import pytest
from meshwright._core import remat_candidates, remat_policies
from tiny_models import assert_same, make_batch, make_model, make_trainer, weights_of

SIZES = dict(num_layers=4, embedding_dim=128, mlp_dim=256, num_query_heads=8, num_kv_heads=4, head_dim=16, vocab_size=128)
EXPERTS = dict(moe_mlp_dim=128, mlp_dim=128, moe=dict(num_experts=4))


def config_of(name: str, **sizes) -> mw.Model:
    return mw.Model(name, **{**SIZES, "max_position_embeddings": 256, **sizes}, dtype="float32")


@pytest.fixture(scope="module", params=["llama3-8b", "mixtral-8x7b"])
def model(request) -> mw.Model:
    return config_of(request.param, **(EXPERTS if request.param == "mixtral-8x7b" else {}))


def plan(model, remat, **more) -> mw.PlanReport:
    return mw.plan(model, batch=4, seq=128, dtype="float32", remat=remat, **more)


def test_every_policy_of_maxtext_is_here() -> None:
    names = """none full minimal minimal_with_context minimal_flash minimal_with_quantization minimal_with_context_and_quantization
        save_dot_with_context_except_mlp save_dot_except_mlpwi save_dot_except_mlp save_qkv_proj save_out_proj qkv_proj_offloaded
        minimal_offloaded auto"""
    assert set(remat_policies()) == set(names.split())


@pytest.mark.parametrize("remat", [name for name in remat_policies() if name != "auto"] + ["custom:qkv_proj=offload,out_proj"])
def test_a_policy_changes_memory_and_no_number(remat) -> None:
    keeping, other = make_trainer(make_model()), make_trainer(make_model(), remat=remat)
    for step in range(2):
        a, b = keeping.step(make_batch(seed=step)), other.step(make_batch(seed=step))
        assert (a.loss, a.grad_norm) == (b.loss, b.grad_norm)
    assert_same(weights_of(other.model), weights_of(keeping.model))
    assert other._step.bytes_in_use(0) == b.peak_bytes


def test_the_order_of_auto_is_by_recompute(model) -> None:
    reports = [plan(model, name) for name in remat_candidates()]
    flops = [report.executed_flops for report in reports]
    assert flops == sorted(flops) and flops[0] < flops[-1]
    assert reports[0].memory["activations"] > reports[-1].memory["activations"]


def test_auto_takes_the_first_that_fits(model) -> None:
    reports = [plan(model, name) for name in remat_candidates()]
    peaks = [report.peak_bytes for report in reports]
    for budget in peaks:
        auto = plan(model, "auto", memory=budget)
        expected = next(i for i, peak in enumerate(peaks) if peak <= budget)
        assert auto.fits and auto.settings["remat"] == remat_candidates()[expected]
        assert auto.peak_bytes == peaks[expected]
    tight = plan(model, "auto", memory=min(peaks) - 1)
    assert not tight.fits and tight.peak_bytes == min(peaks)


def test_auto_in_a_trainer() -> None:
    sizes = dict(batch=4, seq=16, dtype="float32", clip=1.0, optimizer=mw.AdamW(lr=1e-2))
    budget = mw.plan(make_model(), remat="full", **sizes).peak_bytes
    trainer = make_trainer(make_model(), remat="auto", memory=budget)
    metrics = trainer.step(make_batch())
    assert metrics.peak_bytes <= budget
    assert trainer.remat == mw.plan(make_model(), remat="auto", memory=budget, **sizes).settings["remat"]
    assert mw.plan(make_model(), remat=trainer.remat, **sizes).peak_bytes == metrics.peak_bytes
    roomy = make_trainer(make_model(), remat="auto")
    roomy.step(make_batch())
    assert roomy.remat == "none"
    least = min(mw.plan(make_model(), remat=name, **sizes).peak_bytes for name in remat_candidates())
    with pytest.raises(
        mw.UserError, match=rf"remat=auto: no policy fits into {least - 1} bytes per rank; the smallest, \w+, needs {least}"
    ):
        make_trainer(make_model(), remat="auto", memory=least - 1).step(make_batch())


def test_names_of_latent_attention_and_experts() -> None:
    """Each name keeps what it says and nothing else."""
    mla = dict(q_lora_rank=16, kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8)
    moe = dict(num_experts=4, experts_per_token=2, num_shared_experts=1, shared_expert_mlp_dim=64, first_dense_layers=1)
    moe |= dict(num_expert_groups=1, groups_selected=1)
    model = config_of("deepseek3-671b", num_kv_heads=8, num_layers=3, moe_mlp_dim=64, mtp_layers=0, mla=mla, moe=moe)
    full = {a["scope"] for a in plan(model, "full").activations}
    for name, parts in {
        "query_wa_proj": {"attention.query.low_rank"},
        "kv_wa_proj": {"attention.latent"},
        "mla_q": {"attention.query"},
        "mla_kv": {"attention.key", "attention.value"},
        "moe_mlpwi_0": {"mlp.gate"},
        "moe_mlpwi_1": {"mlp.up"},
        "mlpwi_0": {"mlp.gate", "mlp.shared.gate"},
    }.items():
        kept = {a["scope"] for a in plan(model, f"custom:{name}").activations} - full
        assert kept == {f"layers.*.{part}" for part in parts}, name
    by_experts = {a["scope"]: a["bytes"] for a in plan(model, "custom:moe_mlpwi_0").activations}
    by_dense = {a["scope"]: a["bytes"] for a in plan(model, "custom:mlpwi_0").activations}
    assert by_experts["layers.*.mlp.gate"] == 2 * 4 * 128 * 2 * 64 * 4  # two layers, two experts per token
    assert by_dense["layers.*.mlp.gate"] == 4 * 128 * 256 * 4  # one layer


def test_offloaded_bytes_are_told_apart() -> None:
    report = plan(config_of("llama3-8b"), "minimal_offloaded", memory=1 << 40)
    kept = plan(config_of("llama3-8b"), "minimal", memory=1 << 40)
    assert report.host_bytes > 0 and kept.host_bytes == 0
    assert report.memory["activations"] + report.host_bytes == kept.memory["activations"]
    assert report.peak_bytes == sum(report.memory.values())
    assert "on the host" in report.table() and "on the host" not in kept.table()
    assert "host      activations" in report.explain(after="memory")
