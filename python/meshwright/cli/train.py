"""meshwright train: a model from random weights (a name) or from a folder's weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from meshwright._core import UserError
from meshwright.checkpoints import check_place
from meshwright.cli.ingredients import is_folder, make_losses, make_mesh, make_optimizer, make_schedule, open_model, say
from meshwright.cli.parser import Config
from meshwright.ranks import speaks
from meshwright.run_log import remember_settings


def run(config: Config) -> None:
    import meshwright as mw

    output = config["output"]
    sizes = {"seq": config["seq"], "batch": config["batch"], "seed": config["seed"]}
    data = mw.TokenDataset(config["data"], split="train", **sizes)
    model = _model(config, data)
    if output is not None:
        check_place(Path(output))
    if output is not None and speaks():
        remember_settings(output, config.values, config.free_keys(), binding=any(Path(output).glob("step-*")))
    evaluate = config["eval_every"] is not None
    trainer = mw.Trainer(
        model,
        optimizer=make_optimizer(config),
        schedule=make_schedule(config),
        mesh=make_mesh(config),
        batch_shape=(config["batch"], config["seq"]),
        remat=config["remat"],
        rules=config["rules"],
        dtype=config["dtype"],
        gradient_accumulation=config["gradient_accumulation"],
        microbatches=config["microbatches"],
        seed=config["seed"],
        clip=config["clip"],
        losses=make_losses(config),
        context_attention=config["context_attention"],
        expert_rows_factor=config["expert_rows_factor"],
        reduce_dtype=config["reduce_dtype"],
        pipeline=config["pipeline"],
        interleave=config["interleave"],
        overlap=bool(config["overlap"]),
        overlap_bytes=config["overlap_bytes"],
        output=output,
        log_every=config["log_every"],
        save_every=config["save_every"],
        keep=config["keep"],
        eval_data=mw.TokenDataset(config["data"], split="validation", **sizes) if evaluate else None,
        eval_every=config["eval_every"],
        reset_optimizer=config["reset_optimizer"],
        profile=config["profile"],
    )
    trainer.fit(data, steps=config["steps"])
    if config["profile"] is not None and trainer.profiled is not None and speaks():
        print(trainer.profiled.table())
    if output is not None and speaks():
        print(f'trained; the model is in {output}. Try: meshwright generate {output} prompt="..." temperature=0.8')


def _model(config: Config, data: Any) -> Any:
    import meshwright as mw

    name, fields = config["model"], config.group("model")
    if is_folder(name):
        if fields:
            raise UserError(f"model={name} is a folder, whose configuration is fixed; found model.{next(iter(fields))}")
        say(f"model: the weights in {name}")
        return open_model(config)
    fields.setdefault("vocab_size", data.vocab_size)
    model = mw.Model(name, seed=config["seed"], **fields)
    model.tokenizer = data.tokenizer
    shown = name if isinstance(name, str) else "the given configuration"
    say(f"model: {shown} from random weights, {model.num_parameters:,} parameters, vocabulary {fields['vocab_size']:,}")
    return model
