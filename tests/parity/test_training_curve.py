"""Fifty optimizer steps beside PyTorch's."""

from __future__ import annotations

import meshwright as mw
import numpy as np
import pytest
import torch
from parity.reference_models import make_batch, make_model, save_model

STEPS = 50
CASE = "llama_gqa_llama3_rope"


def batches() -> list[torch.Tensor]:
    # A few batches over and over: the loss falls, so that errors would show.
    return [make_batch(4, 16, seed=100 + i % 5) for i in range(STEPS)]


def torch_losses(optimizer_of, clip: float | None, lr_of=None) -> list[float]:
    model = make_model(CASE).train()
    embedding = model.get_input_embeddings().weight
    decayed = [p for p in model.parameters() if p.ndim >= 2 and p is not embedding]
    others = [p for p in model.parameters() if p.ndim < 2 or p is embedding]
    optimizer = optimizer_of(decayed, others)
    losses = []
    for step, ids in enumerate(batches()):
        if lr_of is not None:
            for group in optimizer.param_groups:
                group["lr"] = lr_of(step)
        optimizer.zero_grad()
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        losses.append(loss.item())
    return losses


def our_losses(tmp_path, optimizer, **arguments) -> list[float]:
    model = mw.Model.from_pretrained(save_model(CASE, tmp_path), dtype="float32")
    trainer = mw.Trainer(model, optimizer, show=False, **arguments)
    return [trainer.step({"input_ids": ids}).loss for ids in batches()]


def assert_follows(ours: list[float], theirs: list[float]) -> None:
    assert theirs[-1] < 0.8 * theirs[0], "the reference must learn"
    assert np.max(np.abs(np.array(ours) - theirs) / np.array(theirs)) <= 1e-4


def adamw(decayed, others):
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), eps=1e-8)


def test_adamw_with_clipping(tmp_path) -> None:
    ours = our_losses(tmp_path, mw.AdamW(lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1), clip=1.0)
    assert_follows(ours, torch_losses(adamw, 1.0))


def test_adamw_accumulating_four_microbatches(tmp_path) -> None:
    ours = our_losses(tmp_path, mw.AdamW(lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1), clip=1.0, gradient_accumulation=4)
    assert_follows(ours, torch_losses(adamw, 1.0))


@pytest.mark.parametrize(("momentum", "lr"), [(0.0, 0.1), (0.9, 0.02)])
def test_sgd(tmp_path, momentum, lr) -> None:
    def sgd(decayed, others):
        groups = [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
        return torch.optim.SGD(groups, lr=lr, momentum=momentum)

    ours = our_losses(tmp_path, mw.SGD(lr=lr, momentum=momentum, weight_decay=0.01))
    assert_follows(ours, torch_losses(sgd, None))
