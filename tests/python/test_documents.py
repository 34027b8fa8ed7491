"""The examples in README.md and docs: command lines parse, and what a reader would copy runs, with fewer steps and a smaller model."""

import re
import shlex
from pathlib import Path

import meshwright as mw
import numpy as np
import pytest
from meshwright.cli.main import main
from meshwright.cli.parser import find_command, parse

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SMALLER = {
    '"mini"': '"tiny"',
    "model=mini": "model=tiny",
    "seq=256": "seq=32",
    "vocab=4096": "vocab=300",
    "steps=1000": "steps=4",
    "steps=100)": "steps=4)",
    "step-00001000": "step-00000004",
    "step-00000200": "step-00000004",
    "max_new_tokens=64": "max_new_tokens=4",
    "eval_every=200": "eval_every=2",
    "save_every=200": "save_every=2",
    "validation=0.05": "validation=0.2",
}


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def command_lines(page):
    lines = re.findall(r"^(?:    )?(meshwright [a-z].*)$", page.read_text(), re.MULTILINE)
    return [shlex.split(line, comments=True)[1:] for line in lines]


def smaller(text):
    for large, small in SMALLER.items():
        text = text.replace(large, small)
    return text


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """The folder of a reader with some text."""
    monkeypatch.chdir(tmp_path)
    sentence = "Once upon a time a small model read a small book, {} times over, and wrote another one.\n"
    (tmp_path / "book.txt").write_text("".join(sentence.format(i) for i in range(300)))
    (tmp_path / "notes").mkdir()
    for i in range(8):
        (tmp_path / "notes" / f"{i}.md").write_text("".join(sentence.format(i * j) for j in range(30)))
    return tmp_path


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "design.md"], ids=lambda page: page.name)
def test_command_lines_parse(page, reader):
    for arguments in command_lines(page):
        if not arguments[0].startswith("-") and "--help" not in arguments and "..." not in arguments:
            parse(find_command(arguments[0]), arguments[1:])


def test_commands_of_the_readme_run(reader, capsys):
    block = next(block for block in blocks(ROOT / "README.md", "") if "meshwright prepare" in block)
    for line in smaller(block).splitlines():
        if "llama3-8b" not in line:  # planned below, in Python
            assert main(shlex.split(line)[1:]) == 0, line
    shown = capsys.readouterr().out
    assert "perplexity" in shown and "model.norm.weight" in shown and "llama3-8b" in shown and "Once" in shown


def run_examples(page, names):
    found = blocks(ROOT / page, "python")
    assert found
    for block in found:
        if "datasets.load_dataset" not in block:  # that package is not among the tests' requirements
            exec(compile(smaller(block), page, "exec"), names)


def test_python_of_the_readme_runs(reader):
    run_examples("README.md", {})


def test_python_of_the_recipes_runs(reader):
    """The recipes that go on from one another, in their reading order."""
    names = {}
    run_examples("docs/recipes/train_on_your_text.md", names)
    names["batch"] = names["data"].batch(0)
    for page in ("resume", "read_metrics", "export", "tokenizers_and_chats"):
        run_examples(f"docs/recipes/{page}.md", names)
    names["model"] = mw.Model.from_pretrained("runs/a")
    run_examples("docs/recipes/mesh_of_threads.md", names)
    run_examples("docs/recipes/open_weights.md", {})


def test_python_of_the_recipes_of_your_own_code_runs(reader):
    generator = np.random.default_rng(0)
    names = {
        "np": np,
        "array": generator.random((2, 3)),
        "x": generator.random((8, 64)),
        "gate": generator.random((128, 64)),
        "down": generator.random((64, 128)),
    }
    model = mw.Model("tiny", vocab_size=4096)
    names["trainer"] = mw.Trainer(model, optimizer=mw.AdamW(lr=1e-3), show=False)
    for page in ("your_own_data_loader", "write_a_block", "plan_ahead"):
        run_examples(f"docs/recipes/{page}.md", names)
    assert names["trainer"].steps_done == 4
