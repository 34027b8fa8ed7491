"""meshwright quickstart: from nothing to a trained model that writes text."""

from __future__ import annotations

from meshwright.cli.parser import Config


def run(config: Config) -> None:
    from meshwright.quickstart import quickstart

    quickstart(config["output"], steps=config["steps"], minutes=config["minutes"], seed=config["seed"])
