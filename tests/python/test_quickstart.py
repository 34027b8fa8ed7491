import hashlib
import math
import shlex
import sysconfig
from pathlib import Path

import pytest
from meshwright import UserError
from meshwright.cli.main import main
from meshwright.cli.parser import parse
from meshwright.quickstart import Corpus, bits_per_byte, choose_steps, find_corpus, is_held_back, next_commands, valid_python_lines


def test_corpus_of_this_machine():
    corpus = find_corpus()
    assert corpus.root == Path(sysconfig.get_paths()["stdlib"])
    names = [file.relative_to(corpus.root).as_posix() for file in (*corpus.train, *corpus.held_back)]
    assert len(names) == len(set(names)) and "argparse.py" in names
    assert not any(part in ("site-packages", "dist-packages", "test", "tests", "idle_test") for name in names for part in name.split("/"))
    assert list(corpus.train) == sorted(corpus.train, key=lambda file: file.relative_to(corpus.root).as_posix())
    for file in corpus.held_back:
        digest = hashlib.sha256(file.relative_to(corpus.root).as_posix().encode()).hexdigest()
        assert int(digest, 16) % 20 == 0
    share = Corpus.bytes_of(corpus.held_back) / Corpus.bytes_of(corpus.train)
    assert 0.01 < share < 0.15


def test_corpus_leaves_out_what_it_should(tmp_path):
    for name in ("b.py", "a/c.py", "test/x.py", "a/tests/y.py", "lib/idle_test/z.py", "site-packages/p.py", "a/notes.txt", "testing/t.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")
    corpus = find_corpus(tmp_path, smallest=1)
    names = sorted(file.relative_to(tmp_path).as_posix() for file in (*corpus.train, *corpus.held_back))
    assert names == ["a/c.py", "b.py", "testing/t.py"]
    assert all(is_held_back(file.relative_to(tmp_path).as_posix()) for file in corpus.held_back)


def test_a_small_corpus_is_an_error_that_says_where_it_looked(tmp_path):
    (tmp_path / "a.py").write_text("x = 1\n")
    with pytest.raises(UserError) as error:
        find_corpus(tmp_path)
    for part in ("at least 4,000,000 bytes", "found 6 in 1 files", str(tmp_path), "site-packages"):
        assert part in str(error.value)


def test_steps_fit_into_the_minutes():
    assert choose_steps(0.25, 5) == 1200
    assert choose_steps(10.0, 5) == 300 and choose_steps(0.001, 5) == 3000 and choose_steps(0.0, 5) == 3000


@pytest.mark.parametrize(
    "text, lines",
    [
        ("def __init__(self, x):\n    self.x = x\n    self.y = (", 2),
        ("def __init__(self):\n    pass", 2),
        ("def __init__(self, x", 0),
        ("def __init__(self):\n", 0),
        ("def __init__(self):\n    return x\n  bad indent\n    y", 2),
        ('def __init__(self):\n    """One\n    two."""\n\n    # why\n    self.x = 1\nelse:', 4),
        ("import os\n# only a comment\n\n", 1),
        ("x = 1\0", 0),
        ("", 0),
    ],
)
def test_valid_python_lines(text, lines):
    assert valid_python_lines(text) == lines


def test_bits_per_byte():
    assert bits_per_byte(math.log(2), tokens=100, text_bytes=400) == pytest.approx(0.25)


def test_next_commands_parse():
    lines = next_commands(Path("my runs/q")).splitlines()[1:]
    assert len(lines) == 4
    for line in lines:
        words = shlex.split(line)
        assert words[0] == "meshwright" and "my runs/q" in line
        parse(words[1], words[2:])


def test_quickstart_rejects_bad_keys(capsys):
    assert main(["quickstart", "steps=0"]) == 2
    assert "steps: expected a whole number or none at least 1, found 0" in capsys.readouterr().err
