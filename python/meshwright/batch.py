"""From a user's batch to the arrays that a Program reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from meshwright import _core


@dataclass(frozen=True)
class ModelFields:
    """input_ids, targets, segment_ids, position_ids int32 and loss_weights float32, all [batch, seq]; with multi-token prediction also
    mtp_input_ids.k, mtp_targets.k and mtp_loss_weights.k for each depth k."""

    arrays: dict[str, Any]
    loss_scale: float
    """1 / the sum of the loss weights, which makes the loss a mean."""
    tokens: int
    """Tokens that are not padding."""


def adapt(batch: Mapping[str, Any], vocab_size: int, mtp_depths: int = 0) -> ModelFields:
    """Checks, shifts and masks a batch (fields as `Trainer.step` takes them); once more for each depth of multi-token prediction.

    Raises:
        UserError: unknown or missing fields, wrong shapes or dtypes, ids outside the vocabulary, nothing to learn from.
    """
    fields = dict(_core.adapt_batch(dict(batch), vocab_size, mtp_depths))
    fields.pop("num_targets")
    weight = fields.pop("weight_sum")
    if not weight > 0:
        raise _core.UserError("the batch has no token with a target and a weight above 0; expected at least one")
    return ModelFields(fields, 1.0 / weight, int((fields["segment_ids"] >= 0).sum()))


def forward_fields(input_ids: Any, attention_mask: Any, segment_ids: Any, position_ids: Any, vocab_size: int) -> dict[str, Any]:
    """The fields of a forward pass without a loss."""
    batch = {"input_ids": input_ids, "attention_mask": attention_mask, "segment_ids": segment_ids, "position_ids": position_ids}
    fields = _core.adapt_batch({name: value for name, value in batch.items() if value is not None}, vocab_size)
    return {name: fields[name] for name in ("input_ids", "segment_ids", "position_ids")}
