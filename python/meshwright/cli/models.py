"""meshwright models: the configurations that come with the package."""

from __future__ import annotations

import json

from meshwright._core import UserError
from meshwright.cli.parser import Config
from meshwright.cli.table import print_json, print_table
from meshwright.packaged import configs_folder


def run(config: Config) -> None:
    import meshwright as mw

    wanted = (config["filter"] or "").lower()
    files = sorted((configs_folder() / "models").glob("*.json"))
    names = [file.stem for file in files if wanted in file.stem.lower()]
    if not names:
        raise UserError(f"no model's name contains {config['filter']!r}; there are {', '.join(file.stem for file in files)}")
    rows = []
    for file in files:
        if file.stem in names:
            fields = json.loads(file.read_text(encoding="utf-8"))
            shown = {name: fields.get(name) for name in ("family", "num_layers", "embedding_dim", "vocab_size")}
            costs = mw.model_costs(file.stem, seq=min(config["seq"], fields["max_position_embeddings"]))
            rows.append(
                {
                    "model": file.stem,
                    **shown,
                    "parameters": costs["num_parameters"],
                    "active": costs["active_parameters"],
                    "vision": costs["vision_parameters"],
                    "mtp": costs["mtp_parameters"],
                    "training_flops_per_token": costs["training_flops_per_token"],
                    "kv_bytes_per_token": costs["kv_cache_bytes_per_token"],
                }
            )
    if config["json"]:
        print_json(rows)
    else:
        unused = [name for name in ("vision", "mtp") if not any(row[name] for row in rows)]
        print_table([{name: value for name, value in row.items() if name not in unused} for row in rows])
