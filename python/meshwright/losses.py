"""Terms that training adds to the mean loss per token."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from meshwright._core import UserError

MTP_WEIGHT = 0.3  # DeepSeek-V3 2024, section 4.2: of the first 10T tokens


@dataclass(frozen=True)
class Losses:
    """Weights of the terms beside the loss per token; 0 leaves a term out.

    mtp: the mean loss of the multi-token prediction modules (DeepSeek-V3 2024, eq. 24-25). None: 0.3 where the model has some.
    load_balance: how evenly the experts of all layers together are loaded (Fedus et al. 2021, as transformers' load_balancing_loss_func).
        None: the weight in the model's configuration where its `moe.output_router_logits` is set, else 0.
    sequence_balance: the same within each sequence, layer by layer (DeepSeek-V3 2024, eq. 17-20).
    router_z: the mean squared log-sum-exp of the router's logits, layer by layer (Zoph et al. 2022).
    selection_bias_rate: moves the router's selection bias by this much per step towards the experts with less than the mean load
        (DeepSeek-V3 2024, section 2.1.2), without a loss.
    expert_load: hands out how many tokens chose each expert, as `metrics.expert_load`.
    """

    mtp: float | None = None
    load_balance: float | None = None
    sequence_balance: float = 0.0
    router_z: float = 0.0
    selection_bias_rate: float = 0.0
    expert_load: bool = False

    def for_training(self, config: Any) -> dict[str, Any]:
        """The fields as the core takes them, for a model of this configuration."""
        fields = asdict(self)
        if self.mtp is None:
            fields["mtp"] = MTP_WEIGHT if config.mtp_layers else 0.0
        if self.load_balance is None:
            asked = config.moe is not None and config.moe.output_router_logits
            fields["load_balance"] = float(config.moe.load_balance_loss_weight or 0.0) if asked else 0.0
        return fields

    def for_gradients(self) -> dict[str, Any]:
        """The same for `loss_and_gradients`, where nothing is added that was not asked for."""
        fields = asdict(self)
        if self.selection_bias_rate or self.expert_load:
            raise UserError("losses: selection_bias_rate and expert_load belong to training steps; expected neither here")
        return {name: value or 0.0 for name, value in fields.items() if name != "expert_load"}
