"""meshwright generate: continuations of prompts."""

from __future__ import annotations

import warnings

from meshwright.cli.ingredients import open_model, say
from meshwright.cli.parser import Config


def run(config: Config) -> None:
    import meshwright as mw

    prompts = config["prompt"]
    chat = config["chat"]
    for prompt in prompts:
        if not chat and prompt.endswith((" ", "\t")):
            say(f"warning: the prompt {prompt!r} ends in a space; tokenizers join a space to the word after it, so leave it out")
    model = open_model(config)
    sampling = {"temperature": config["temperature"], "top_k": config["top_k"], "top_p": config["top_p"], "min_p": config["min_p"]}
    sampling = {name: value for name, value in sampling.items() if value is not None} if config["temperature"] > 0 else {}
    stop = {"stop_strings": config["stop"]} if config["stop"] else {}
    repeated = [prompt for prompt in prompts for _ in range(config["samples"])]
    given = [[{"role": "user", "content": prompt}] for prompt in repeated] if chat else repeated
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the prompt .* ends in a space")  # said above, once per prompt
        texts = mw.Generator(model).generate(
            given, max_new_tokens=config["max_new_tokens"], do_sample=config["temperature"] > 0, seed=config["seed"], **sampling, **stop
        )
    for i, (prompt, text) in enumerate(zip(repeated, texts, strict=True)):
        if i:
            print("-" * 40)
        print(text if chat else prompt + text)
