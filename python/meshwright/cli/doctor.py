"""meshwright doctor: what this machine offers and what stands in the way of it."""

from __future__ import annotations

from meshwright.cli.parser import Config
from meshwright.cli.table import print_json, print_table


def run(config: Config) -> None:
    import meshwright as mw

    report = mw.doctor(threads=config["threads"])
    if config["json"]:
        print_json(report)
        return
    print_table([{"fact": name, "value": value} for name, value in report.items() if name != "warnings"])
    for warning in report["warnings"]:
        print(f"warning: {warning}")
