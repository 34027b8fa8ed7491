"""meshwright doctor: what this machine offers and what stands in the way of it."""

from __future__ import annotations

from meshwright.cli.parser import Config
from meshwright.cli.table import print_json, print_table


def run(config: Config) -> None:
    import meshwright as mw

    report = mw.doctor(threads=config["threads"], fresh=config["fresh"])
    if config["json"]:
        print_json(report)
        return
    apart = ("kernels", "warnings")
    facts = {name: ", ".join(value) if isinstance(value, list) else value for name, value in report.items() if name not in apart}
    print_table([{"fact": name.replace("_", " "), "value": value} for name, value in facts.items()])
    if report.get("kernels"):
        print()
        print_table([{"op": op, "kernels": "; ".join(variants)} for op, variants in report["kernels"].items()])
    for warning in report["warnings"]:
        print(f"warning: {warning}")
