"""The command line up to the commands themselves: every kind of mistake has its message, every key its line of help."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from meshwright import UserError, __version__
from meshwright.cli import foreign
from meshwright.cli.document import config_page, help_text
from meshwright.cli.keys import COMMANDS, KEYS, keys_of
from meshwright.cli.main import main
from meshwright.cli.parser import make_config, parse

ROOT = Path(__file__).resolve().parents[2]
NEEDED = ["model=mini", "data=data"]


def meshwright(*arguments, **options):
    return subprocess.run([sys.executable, "-m", "meshwright.cli.main", *arguments], capture_output=True, text=True, **options)


def test_three_spellings_mean_the_same():
    spelled = [["seq=64", "mesh.fsdp=4"], ["--seq", "64", "--mesh.fsdp", "4"], ["--seq=64", "--mesh.fsdp=4"]]
    configs = [parse("train", NEEDED + arguments) for arguments in spelled]
    assert configs[0] == configs[1] == configs[2]
    assert configs[0]["seq"] == 64 and {a: n for a, n in configs[0].group("mesh").items() if n != 1} == {"fsdp": 4}
    assert configs[0].given == {"model", "data", "seq", "mesh.fsdp"}
    assert parse("generate", ["runs/a", "prompt=x", "--max-new-tokens", "3"])["max_new_tokens"] == 3


def test_values_are_typed():
    config = parse("train", [*NEEDED, "lr=1e-3", "steps=1_000", "clip=none", "warmup=100", "decay=0.2", "decay_embeddings=yes"])
    assert config["lr"] == 1e-3 and config["steps"] == 1000 and config["clip"] is None and config["decay_embeddings"] is True
    assert config["warmup"] == 100 and isinstance(config["warmup"], int) and config["decay"] == 0.2
    assert config["beta2"] == 0.95 and config["eval_every"] == 200
    assert parse("generate", ["runs/a", "prompt=def f(x=1):"])["prompt"] == ["def f(x=1):"]
    assert parse("generate", ["runs/a", 'prompt=["a", "b"]'])["prompt"] == ["a", "b"]
    assert parse("plan", ["model=tiny", "--json"])["json"] is True
    assert parse("plan", ["--json", "tiny"])["model"] == "tiny" and parse("plan", ["--json", "false", "tiny"])["json"] is False
    assert parse("prepare", ["a.txt", "b/"])["inputs"] == ["a.txt", "b/"]


def test_model_fields_are_open():
    config = parse("train", [*NEEDED, "model.num_layers=2", "model.tie_embeddings=true", "model.rope=llama3"])
    assert config.group("model") == {"num_layers": 2, "tie_embeddings": True, "rope": "llama3"}
    with pytest.raises(UserError, match=r"unknown key 'model.num_layers'"):
        parse("generate", ["runs/a", "prompt=x", "model.num_layers=2"])


def test_run_file_and_command_line(tmp_path):
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"model": {"num_layers": 2}, "data": "d", "mesh": {"fsdp": 2}, "seq": 128, "clip": None, "lr": 1}))
    config = parse("train", [str(path), "seq=64"])
    assert config["model"] == {"num_layers": 2} and config["mesh.fsdp"] == 2 and config["seq"] == 64 and config["clip"] is None
    assert config["lr"] == 1.0


@pytest.mark.parametrize(
    "content, parts",
    [
        ('{"seq": "64"', ["not valid JSON"]),
        ("[1]", ["expected an object", "list"]),
        ('{"seq": 1, "seq": 2}', ["'seq' is given twice"]),
        ('{"mesh": {"fsdp": 2}, "mesh.fsdp": 4}', ["'mesh.fsdp' twice"]),
        ('{"seq": 64.5}', ["seq: expected a whole number, found '64.5'"]),
        ('{"seq": true}', ["seq: expected a whole number, found 'true'"]),
        ('{"seq": null}', ["seq: expected a whole number, found 'null'"]),
        ('{"blok": 1}', ["unknown key 'blok'"]),
    ],
)
def test_bad_run_files(tmp_path, content, parts):
    path = tmp_path / "run.json"
    path.write_text(content)
    with pytest.raises(UserError) as error:
        parse("train", [*NEEDED, str(path)])
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize(
    "arguments, parts",
    [
        (["trian"], ["no command 'trian'", "did you mean 'train'?", "quickstart, prepare"]),
        (["train", "sed=1"], ["unknown key 'sed'", "did you mean 'seed'?", "`meshwright train --help`"]),
        (["train", "zzzz=1"], ["unknown key 'zzzz'."]),
        (["train", "--steep", "3"], ["unknown key 'steep'", "'steps'"]),
        (["train", "block_size=4"], ["nanoGPT's block_size is called 'seq'"]),
        (["train", "learning_rate=4"], ["nanoGPT's learning_rate is called 'lr'"]),
        (["train", "--per_device_train_batch_size", "4"], ["Hugging Face's per_device_train_batch_size is called 'batch'"]),
        (["train", "max_target_length=4"], ["MaxText's max_target_length is called 'seq'"]),
        (["train", "n_layer=4"], ["is called 'model.num_layers'"]),
        (["train", "prompt=x"], ["train has no key 'prompt'", "generate"]),
        (["train", "steps=many"], ["steps: expected a whole number or none, found 'many'"]),
        (["train", "steps=1.5"], ["steps: expected a whole number or none, found '1.5'"]),
        (["train", "lr=fast"], ["lr: expected a number, found 'fast'"]),
        (["train", "lr=nan"], ["lr: expected a number, found 'nan'"]),
        (["train", "lr=1e999"], ["lr: expected a number at least 0, found 1e999"]),
        (["train", "decay_embeddings=maybe"], ["expected true or false, found 'maybe'"]),
        (["train", "warmup=1.5"], ["steps or a share of the run"]),
        (["train", "seq=1"], ["seq: expected a whole number at least 2, found 1"]),
        (["train", "beta1=1"], ["beta1: expected a number at least 0 and below 1, found 1"]),
        (["train", "final=2"], ["final: expected a number 0 to 1, found 2"]),
        (["train", "clip=0"], ["clip: expected a number or none above 0, found 0"]),
        (["train", "schedule=cosin"], ["one of constant, cosine, wsd, linear", "did you mean 'cosine'?"]),
        (["train", "seq=1", "seq=2"], ["'seq' is given twice: seq=1 and seq=2"]),
        (["train", "seq=1", "--seq", "2"], ["'seq' is given twice"]),
        (["train", "a.json", "b.json"], ["at most one run file", "a.json and b.json"]),
        (["train", "missing.json"], ["run file 'missing.json' does not exist"]),
        (["train", "folder"], ["train takes key=value and a run file, found 'folder'"]),
        (["train", "-n", "3"], ["found '-n'", "no short forms"]),
        (["train", "--seq"], ["--seq needs a value"]),
        (["train", "--seq", "--batch=2"], ["--seq needs a value"]),
        (["train"], ["train needs model", "data", "For example: meshwright train"]),
        (["generate", "a", "b"], ["generate takes one model, found a and b"]),
        (["generate", "a", "model=b"], ["'model' is given twice: a and model=b"]),
        (["generate", "a"], ["generate needs prompt"]),
    ],
)
def test_every_mistake_has_its_message(arguments, parts, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith("meshwright: ") and "Traceback" not in shown.err
    for part in parts:
        assert part in shown.err


def test_help_lists_every_command_and_key_with_its_default():
    text = help_text()
    for command in COMMANDS:
        own = text.split(f"\n{command}:\n")[1].split("\n\n")[0]
        for key in keys_of(command).values():
            assert f"  {key.name}={key.default_text(command)} " in own, (command, key.name)
    result = meshwright("train", "--help")
    assert result.returncode == 0 and "save_every=500" in result.stdout and "prompt=" not in result.stdout
    assert meshwright("--help").stdout == text + "\n"
    assert meshwright("--version").stdout == f"meshwright {__version__}\n"
    assert meshwright().returncode == 2


def test_config_page_is_current():
    written = (ROOT / "docs" / "config.md").read_text()
    assert written == config_page(), "run: python -m meshwright.cli.document > docs/config.md"


def test_table_is_sound():
    for command in COMMANDS:
        names = [key.name for key in KEYS if command in key.commands]
        assert len(names) == len(set(names)), command
    for key in KEYS:
        assert set(key.commands) <= set(COMMANDS) and set(key.defaults) <= set(key.commands), key.name
        for command in key.commands:
            default = key.default_for(command)
            assert key.required == (default is None and not key.optional), key.name
            if default is not None:
                given = {needed.name: "x" for needed in keys_of(command).values() if needed.required and needed is not key}
                assert make_config(command, {**given, key.name: default})[key.name] == default
    for command in COMMANDS.values():
        assert command.positional is None or command.positional in keys_of(command.name)
        assert (ROOT / "python" / "meshwright" / "cli" / f"{command.name}.py").exists(), command.name


def test_foreign_names_lead_to_keys_that_exist():
    ours = {key.name for key in KEYS}
    for source, table in foreign.SOURCES.items():
        for theirs, name in table.items():
            assert name in ours or name.startswith("model."), (source, theirs, name)
            assert theirs not in ours, f"{source}'s {theirs} is a key of ours too"


def test_help_is_instant():
    def seconds():
        start = time.monotonic()
        assert meshwright("--help").returncode == 0
        return time.monotonic() - start

    assert min(seconds() for _ in range(5)) < 0.5


def test_interrupt_ends_with_130(monkeypatch, capsys):
    import meshwright.cli.doctor

    def interrupted(config):
        raise KeyboardInterrupt

    monkeypatch.setattr(meshwright.cli.doctor, "run", interrupted)
    assert main(["doctor"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_system_errors_are_messages(monkeypatch, capsys):
    import meshwright.cli.doctor

    def full(config):
        raise OSError(28, "No space left on device", "runs/a/model.safetensors")

    monkeypatch.setattr(meshwright.cli.doctor, "run", full)
    assert main(["doctor"]) == 2
    assert capsys.readouterr().err == "meshwright: runs/a/model.safetensors: No space left on device\n"


def test_a_reader_that_leaves_is_no_error():
    read, write = os.pipe()
    os.close(read)
    process = subprocess.Popen([sys.executable, "-m", "meshwright.cli.main", "--help"], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert process.communicate()[1] == "" and process.returncode == 0
