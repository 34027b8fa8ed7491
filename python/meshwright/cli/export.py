"""meshwright export: a model as a Hugging Face folder."""

from __future__ import annotations

from meshwright.cli.ingredients import checkpoint_of
from meshwright.cli.parser import Config


def run(config: Config) -> None:
    import meshwright as mw

    model = mw.Model.from_pretrained(checkpoint_of(config["model"]), dtype=config["dtype"])
    model.save_pretrained(config["output"], keep_quantized=config["keep_quantized"])
    kept = ", quantised weights as they were" if config["keep_quantized"] else f" in {model.dtype}"
    print(f"{model.name}: {model.num_parameters:,} parameters{kept}, in {config['output']}")
