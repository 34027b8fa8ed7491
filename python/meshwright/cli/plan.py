"""meshwright plan: what a training step would need, without running it."""

from __future__ import annotations

from typing import Any

from meshwright.cli.ingredients import make_losses, make_mesh
from meshwright.cli.parser import Config


def run(config: Config) -> None:
    import meshwright as mw

    settings = dict(
        seq=config["seq"],
        batch=config["batch"],
        optimizer=config["optimizer"],
        dtype=config["dtype"],
        remat=config["remat"],
        rules=config["rules"],
        microbatches=config["microbatches"],
        gradient_accumulation=config["gradient_accumulation"],
        losses=make_losses(config),
        context_attention=config["context_attention"],
        expert_rows_factor=config["expert_rows_factor"],
        reduce_dtype=config["reduce_dtype"],
        overlap_bytes=config["overlap_bytes"],
        hardware=config["hardware"],
        chips=config["chips"],
        overlap=config["overlap"],
        dot_dtype=config["dot_dtype"],
        expert_imbalance=config["expert_imbalance"],
        pipeline=config["pipeline"],
        interleave=config["interleave"],
    )
    if config["sweep"]:
        fixed = {axis: size for axis, size in config.group("mesh").items() if f"mesh.{axis}" in config.given}
        sweep = mw.sweep(config["model"], mesh=fixed, **settings)
        print_report(sweep, config["json"])
        if config["picture"] is not None:
            sweep.best.save_png(config["picture"])
        return
    report = mw.plan(config["model"], mesh=make_mesh(config), **settings)
    if config["explain"] is not None:
        print(report.explain(after=config["explain"]))
    else:
        print_report(report, config["json"])
    if config["picture"] is not None:
        report.save_png(config["picture"])


def print_report(report: Any, as_json: bool) -> None:
    print(report.to_json() if as_json else report.table())
