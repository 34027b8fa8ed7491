"""meshwright bench: one operation's time, rate, share of the bound and kernel."""

from __future__ import annotations

from meshwright.cli.parser import Config
from meshwright.cli.table import print_json, print_table


def run(config: Config) -> None:
    import meshwright as mw
    from meshwright.diagnostics import bench_op

    sizes = {name: config[name] for name in bench_op(config["op"]).sizes if config[name] is not None}
    row = mw.bench(config["op"], **sizes, dtype=config["dtype"], threads=config["threads"])
    if config["json"]:
        print_json(row)
    else:
        print_table([{"fact": name.replace("_", " "), "value": value} for name, value in row.items()])
