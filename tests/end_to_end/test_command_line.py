"""From text to a model that writes text, by the command line alone; and what transformers makes of the folder."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import meshwright as mw
import numpy as np
import pytest
import torch
import transformers

WORDS = "the quick brown fox jumps over the lazy dog while seven wizards quietly vex a bold knight".split()
PROMPTS = ["the quick brown", "seven wizards", "naïve café"]


def command_line(*arguments: str) -> tuple[list[str], dict[str, str]]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "COLUMNS": "200"}
    return [sys.executable, "-m", "meshwright.cli.main", *arguments], environment


def meshwright(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command, environment = command_line(*arguments)
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


def succeed(*arguments: str, cwd: Path) -> str:
    result = meshwright(*arguments, cwd=cwd)
    assert result.returncode == 0, (arguments, result.stdout, result.stderr)
    return result.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a corpus, a data folder and a trained run."""
    place = tmp_path_factory.mktemp("place")
    rng = np.random.default_rng(0)
    (place / "notes").mkdir()
    for number in range(12):
        lines = [" ".join(rng.permutation(WORDS)[:9]) + (". naïve café 🙂" if line % 8 == 0 else ".") for line in range(40)]
        (place / "notes" / f"{number}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    shown = succeed("prepare", "notes", "output=data", "vocab=320", "validation=0.2", cwd=place)
    assert "320" in shown or "token" in shown
    train = ["train", "model=tiny", "data=data", "seq=32", "batch=8", "steps=40", "lr=0.01", "save_every=15", "output=run", "eval_every=20"]
    shown = succeed(*train, cwd=place)
    assert "meshwright generate run" in shown
    return place


def on_a_terminal(*arguments: str, cwd: Path) -> str:
    """What a terminal shows."""
    ours, theirs = pty.openpty()
    command, environment = command_line(*arguments)
    with subprocess.Popen(command, cwd=cwd, env=environment, stdout=theirs, stderr=subprocess.DEVNULL) as process:
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 4096):
                shown += piece
        except OSError:  # how Linux says that the other end is closed
            pass
        os.close(ours)
    assert process.returncode == 0
    return shown.decode().replace("\r\n", "\n")


def newest(place: Path) -> Path:
    return sorted((place / "run").glob("step-*"))[-1]


def test_training_learned_and_was_recorded(place):
    history = mw.run_log.read_history(place / "run")
    assert history.train[-1]["step"] == 40 and history.validation[-1]["loss"] < history.validation[0]["loss"] < 4.0
    assert {"run.json", "metrics.jsonl", "loss.png"} <= {path.name for path in (place / "run").iterdir()}
    assert [path.name for path in sorted((place / "run").glob("step-*"))] == ["step-00000015", "step-00000030", "step-00000040"]


def test_the_same_command_again_has_nothing_to_do(place):
    before = newest(place).stat().st_mtime_ns
    line = json.loads((place / "run" / "run.json").read_text())
    assert line["steps"] == 40 and line["model"] == "tiny"
    succeed("train", "run/run.json", "output=run", cwd=place)
    assert newest(place).stat().st_mtime_ns == before
    result = meshwright("train", "run/run.json", "output=run", "lr=0.02", cwd=place)
    assert result.returncode == 2 and "lr: 0.01 there, 0.02 here" in result.stderr


def test_evaluate(place):
    report = json.loads(succeed("evaluate", "run", "data=data", "seq=32", "--json", cwd=place))
    logged = mw.run_log.read_history(place / "run").validation[-1]["loss"]
    assert report["loss"] == pytest.approx(logged, rel=1e-5) and report["bits_per_token"] == pytest.approx(logged / np.log(2))
    assert "perplexity" in succeed("evaluate", "run", "data=data", "seq=32", "batches=1", cwd=place)


def test_generate(place):
    greedy = succeed("generate", "run", "prompt=the quick", "max_new_tokens=8", cwd=place)
    assert greedy.startswith("the quick") and len(greedy) > len("the quick\n")
    sampled = [
        succeed("generate", "run", "prompt=the", "max_new_tokens=8", "temperature=1", "samples=3", f"seed={seed}", cwd=place)
        for seed in (1, 1)
    ]
    arguments = ("generate", "run", "prompt=the", "max_new_tokens=8", "temperature=1", "samples=3", "seed=1")
    assert succeed(*arguments, "stream=true", cwd=place) == on_a_terminal(*arguments, cwd=place) == sampled[0]
    assert sampled[0] == sampled[1] and sampled[0].count("-" * 40) == 2 and len(set(sampled[0].split("-" * 40))) > 1
    result = meshwright("generate", "run", "prompt=the ", "max_new_tokens=1", cwd=place)
    assert result.returncode == 0 and result.stderr.count("ends in a space") == 1


def test_inspect(place):
    report = json.loads(succeed("inspect", "run", "--json", cwd=place))
    assert report["checkpoint"].endswith("step-00000040")
    shapes = {row["name"]: row["shape"] for row in report["tensors"]}
    assert shapes["model.embed_tokens.weight"] == [320, 64]
    assert re.search(r"model\.norm\.weight", succeed("inspect", str(newest(place)), cwd=place))


def test_mistakes_end_with_2_and_one_message(place):
    for arguments, part in (
        (["train", "model=tiny", "data=data", "blok=3"], "unknown key 'blok'"),
        (["train", "model=tiny", "data=data", "block_size=64"], "nanoGPT's block_size is called 'seq' here"),
        (["train", "model=tiny", "data=data", "seq=many"], "seq: expected a whole number"),
        (["train", "model=tiny", "data=data", "lr=-1"], "lr: expected a number at least 0"),
        (["train", "model=tiny", "data=nowhere"], "nowhere"),
        (["train", "model=tinny", "data=data"], "did you mean 'tiny'"),
        (["train", "model=tiny", "data=data", "seq=1024", "steps=1"], "max_position_embeddings=512"),
        (["train", "model=tiny", "data=data", "seq=32", "steps=1", "batch=6", "mesh.fsdp=4"], "nearest sizes that work: 4 or 8"),
        (["train", "model=tiny", "data=data", "seq=32", "output=notes/0.txt/run"], "is a file"),
        (["train", "model=tiny", "data=data", "model.vocab_size=100", "seq=32", "steps=9"], "expected a token id in 0..99"),
        (["evaluate", "run", "data=data", "seq=1024"], "max_position_embeddings=512"),
        (["generate", "run", "prompt=x", "max_new_tokens=600"], "max_position_embeddings=512"),
        (["generate", "nowhere", "prompt=x"], "does not exist"),
        (["generate", "notes", "prompt=x"], "neither a config.json nor a checkpoint"),
        (["inspect", "notes/0.txt"], "notes/0.txt"),
    ):
        result = meshwright(*arguments, cwd=place)
        assert result.returncode == 2 and part in result.stderr and "Traceback" not in result.stderr, (arguments, result.stderr)


def test_transformers_opens_the_checkpoint(place):
    folder = newest(place)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ours = mw.Model.from_pretrained(folder)
    texts = mw.Generator(ours).generate(PROMPTS, max_new_tokens=16, eos_token_id=None)
    for prompt, text in zip(PROMPTS, texts, strict=True):
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        assert ids[0].tolist() == ours.tokenizer.encode(prompt)
        with torch.no_grad():
            expected = theirs(ids).logits.numpy()
            answer = theirs.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False, eos_token_id=None, pad_token_id=0
            )
        assert np.abs(ours(ids) - expected).max() <= 1e-4 * max(1.0, np.abs(expected).max())
        assert tokenizer.decode(answer[0, ids.shape[1] :], skip_special_tokens=True) == text
