"""Ours: a Trainer over the saved weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import meshwright as mw

from peers.contract import ADAMW, CLIP, token_ids


def step_of(spec: dict[str, Any]) -> Callable[[], float]:
    model = mw.Model.from_pretrained(spec["folder"], threads=spec["threads"])
    trainer = mw.Trainer(model, mw.AdamW(**ADAMW), dtype=spec["dtype"], clip=CLIP, show=False, threads=spec["threads"])
    batch = {"input_ids": token_ids(model.config.vocab_size, spec["batch"], spec["seq"])}
    return lambda: float(trainer.step(batch).loss)
