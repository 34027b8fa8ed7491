"""meshwright plan: what a training step would need, without running it."""

from __future__ import annotations

import json

from meshwright.cli.ingredients import make_losses, make_mesh
from meshwright.cli.parser import Config


def run(config: Config) -> None:
    import meshwright as mw

    report = mw.plan(
        config["model"],
        mesh=make_mesh(config),
        seq=config["seq"],
        batch=config["batch"],
        optimizer=config["optimizer"],
        dtype=config["dtype"],
        remat=config["remat"],
        rules=config["rules"],
        microbatches=config["microbatches"],
        gradient_accumulation=config["gradient_accumulation"],
        losses=make_losses(config),
        expert_rows_factor=config["expert_rows_factor"],
        hardware=config["hardware"],
        chips=config["chips"],
        overlap=config["overlap"],
        dot_dtype=config["dot_dtype"],
        expert_imbalance=config["expert_imbalance"],
    )
    if config["explain"] is not None:
        print(report.explain(after=config["explain"]))
    elif config["json"]:
        answer = report.to_json()
        print(answer if isinstance(answer, str) else json.dumps(answer, indent=2))
    else:
        print(report.table())
