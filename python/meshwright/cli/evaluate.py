"""meshwright evaluate: the loss of a model on one split of a data folder."""

from __future__ import annotations

import math
from itertools import islice

from meshwright.cli.ingredients import open_model
from meshwright.cli.parser import Config
from meshwright.cli.table import print_json, print_table


def run(config: Config) -> None:
    import meshwright as mw

    data = mw.TokenDataset(config["data"], split=config["split"], seq=config["seq"], batch=config["batch"], seed=0)
    model = open_model(config)
    # SGD without momentum has no state: evaluation needs no more memory than the weights.
    trainer = mw.Trainer(model, optimizer=mw.SGD(lr=0.0), dtype=config["dtype"])
    metrics = trainer.evaluate(data if config["batches"] is None else islice(data, config["batches"]))
    row = {"split": config["split"], "loss": metrics.loss, "perplexity": metrics.perplexity, "bits_per_token": metrics.loss / math.log(2)}
    if config["json"]:
        print_json(row)
    else:
        print_table([row])
