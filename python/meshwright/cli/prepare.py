"""meshwright prepare: text files -> a data folder of token shards with its tokenizer."""

from __future__ import annotations

from meshwright.cli.parser import Config


def run(config: Config) -> None:
    import meshwright as mw

    report = mw.prepare(
        config["inputs"],
        config["output"],
        tokenizer=config["tokenizer"],
        vocab=config["vocab"],
        validation=config["validation"],
        field=config["field"],
        seed=config["seed"],
    )
    print(report)
