import gzip
import hashlib
import json
import os
import random
import resource
import subprocess
import sys

import meshwright as mw
import numpy as np
import pytest
from meshwright import UserError
from meshwright.data.holding_back import share_of_names
from meshwright.data.preparation import _cut

WORDS = ["tensor", "shard", "the", "of", "matrix", "epoch", "mesh", "wright", "naïve", "été", "数据", "x = 1", "  indented", "\n\n", "😀"]


def text(seed, words=300):
    draw = random.Random(seed)
    return " ".join(draw.choice(WORDS) + ("\n" if draw.random() < 0.1 else "") for _ in range(words))


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "corpus"
    for i in range(250):
        file = folder / f"part{i % 5}" / f"note{i:03}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text(i, 60), encoding="utf-8")
    (folder / "image.png").write_bytes(b"\x89PNG\0")
    return folder


def decoded(dataset):
    """The documents' texts, without the end-of-text token, which each must have."""
    tokens, starts = dataset.documents()
    texts = []
    for begin, end in zip(starts, [*starts[1:], len(tokens)], strict=True):
        assert tokens[end - 1] == dataset.eos_token_id
        texts.append(dataset.tokenizer.decode(tokens[begin : end - 1], skip_special_tokens=False))
    return texts


def test_round_trip_and_split_by_hash(corpus, tmp_path):
    report = mw.prepare([corpus], tmp_path / "data", vocab=400, validation=0.2)
    train, validation = (mw.TokenDataset(tmp_path / "data", split=split, seq=16) for split in ("train", "validation"))
    expected = {"train": [], "validation": []}
    for file in sorted(corpus.rglob("*.txt"), key=lambda file: file.relative_to(corpus).as_posix()):
        name = file.relative_to(corpus).as_posix()
        low = int(hashlib.sha256(name.encode()).hexdigest()[:16], 16) < 0.2 * 2**64
        expected["validation" if low else "train"].append(file.read_text(encoding="utf-8"))
    assert 20 < len(expected["validation"]) < 80
    assert decoded(train) == expected["train"] and decoded(validation) == expected["validation"]
    assert train.text_bytes == sum(len(text.encode()) for text in expected["train"])
    assert (report.files, report.passed_over, report.documents) == (250, 1, 250)
    assert report.tokens == train.num_tokens + validation.num_tokens and report.text_bytes == train.text_bytes + validation.text_bytes
    assert train.vocab_size == report.vocab_size <= 400 and train.num_targets == train.num_tokens - train.num_documents
    assert "250 files" in str(report) and "1 files were passed over" in str(report)


def test_tokenizer_is_the_same_every_time_and_opens_in_transformers(corpus, tmp_path):
    script = "import sys, meshwright as mw; mw.prepare(sys.argv[1], sys.argv[2], vocab=400)"
    for name in ("a", "b"):
        subprocess.run([sys.executable, "-c", script, str(corpus), str(tmp_path / name)], check=True)
    for file in sorted((tmp_path / "a").iterdir()):
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "a")
    ours = mw.Tokenizer.from_path(tmp_path / "a")
    sample = text(1234)
    assert theirs(sample)["input_ids"] == ours.encode(sample) and theirs.eos_token_id == ours.eos_token_id
    assert ours.decode(ours.encode(sample)) == sample


def test_a_given_tokenizer(corpus, tmp_path):
    mw.prepare(corpus, tmp_path / "a", vocab=400)
    for number, given in enumerate((tmp_path / "a", tmp_path / "a" / "tokenizer.json")):
        output = tmp_path / f"again{number}"
        mw.prepare(corpus, output, tokenizer=given)
        assert (output / "train-00000.tokens").read_bytes() == (tmp_path / "a" / "train-00000.tokens").read_bytes()
        assert (output / "tokenizer.json").read_bytes() == (tmp_path / "a" / "tokenizer.json").read_bytes()
        assert (output / "tokenizer_config.json").read_bytes() == (tmp_path / "a" / "tokenizer_config.json").read_bytes()


def test_a_tokenizer_with_a_first_token(corpus, tmp_path):
    from tokenizers import Tokenizer, processors

    mw.prepare(corpus, tmp_path / "a", vocab=400)
    backend = Tokenizer.from_file(str(tmp_path / "a" / "tokenizer.json"))
    backend.add_special_tokens(["<bos>"])
    bos = backend.token_to_id("<bos>")
    backend.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", bos)])
    backend.save(str(tmp_path / "tokenizer.json"))
    mw.prepare(corpus, tmp_path / "b", tokenizer=tmp_path / "tokenizer.json")
    tokens, starts = mw.TokenDataset(tmp_path / "b", seq=16).documents()
    assert set(tokens[starts]) == {bos} and (tokens == bos).sum() == len(starts)


def test_text_never_becomes_a_special_token(tmp_path):
    texts = [f"before <|endoftext|> after {i}" for i in range(300)]
    mw.prepare(iter(texts), tmp_path / "data", vocab=300, validation=0)
    data = mw.TokenDataset(tmp_path / "data", seq=16)
    assert decoded(data) == texts and data.num_documents == 300


def test_json_lines_parquet_gzip_and_iterables_hold_the_same(tmp_path):
    texts = [text(i, 20) for i in range(300)]
    lines = "".join(json.dumps({"id": i, "body": text}) + "\n" for i, text in enumerate(texts))
    (tmp_path / "a.jsonl").write_text(lines)
    with gzip.open(tmp_path / "b.jsonl.gz", "wt") as file:
        file.write(lines)
    inputs = {"a": tmp_path / "a.jsonl", "b": tmp_path / "b.jsonl.gz", "c": ({"body": text} for text in texts), "d": iter(texts)}
    try:
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.table({"body": texts, "id": list(range(300))}), tmp_path / "e.parquet", row_group_size=70)
        inputs["e"] = tmp_path / "e.parquet"
    except ImportError:
        pass
    for name, given in inputs.items():
        mw.prepare(given, tmp_path / name, vocab=300, validation=0, field="body")
        assert decoded(mw.TokenDataset(tmp_path / name, seq=16)) == texts
        assert sorted(file.name for file in (tmp_path / name).iterdir()) == [
            "dataset.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "train-00000.tokens",
        ]


def test_shards_hold_the_same_as_one(corpus, tmp_path):
    mw.prepare(corpus, tmp_path / "one", vocab=400)
    mw.prepare(corpus, tmp_path / "many", vocab=400, shard_tokens=2000)
    one, many = mw.TokenDataset(tmp_path / "one", seq=16), mw.TokenDataset(tmp_path / "many", seq=16)
    assert len(list((tmp_path / "many").glob("train-*.tokens"))) > 3
    for a, b in zip(one.documents(), many.documents(), strict=True):
        assert np.array_equal(a, b)
    for step in range(len(one)):
        assert all(np.array_equal(one.batch(step)[key], many.batch(step)[key]) for key in one.batch(step))


def test_a_few_long_documents_give_their_ends(tmp_path):
    book = "".join(f"Line {i} of the book says something.\n" for i in range(2000))
    (tmp_path / "book.txt").write_text(book)
    mw.prepare([tmp_path / "book.txt"], tmp_path / "data", vocab=300, validation=0.05)
    (train,), (validation,) = (decoded(mw.TokenDataset(tmp_path / "data", split=split, seq=16)) for split in ("train", "validation"))
    assert train + validation == book and validation.startswith("Line ")
    assert len(validation) == pytest.approx(0.05 * len(book), abs=60)


def test_validation_by_function_and_by_files(corpus, tmp_path):
    mw.prepare(corpus, tmp_path / "a", vocab=400, validation=lambda name: name.startswith("part3/"))
    files = sorted((corpus / "part3").iterdir())
    rest = [file for i in (0, 1, 2, 4) for file in sorted((corpus / f"part{i}").iterdir())]
    mw.prepare(rest, tmp_path / "b", vocab=400, validation=files)
    mw.prepare([corpus], tmp_path / "c", vocab=400, validation=files)
    for name in "abc":
        data = mw.TokenDataset(tmp_path / name, split="validation", seq=16)
        assert decoded(data) == [file.read_text(encoding="utf-8") for file in files]
        assert mw.TokenDataset(tmp_path / name, seq=16).num_documents == 200


def test_seed_changes_what_is_held_back():
    names = [f"a/{i}" for i in range(2000)]
    zero, one = (sum(map(share_of_names(0.1, seed), names)) for seed in (0, 1))
    assert 140 < zero < 260 and 140 < one < 260
    assert [share_of_names(0.1, 0)(name) for name in names] != [share_of_names(0.1, 1)(name) for name in names]


def test_long_texts_are_cut_without_changing_a_token(tmp_path):
    source = "".join(text(i, 2000) + "\n" for i in range(90))
    pieces = list(_cut(source[i : i + 70_001] for i in range(0, len(source), 70_001)))
    assert "".join(pieces) == source and len(pieces) > 2
    mw.prepare(iter([source] * 2), tmp_path / "data", vocab=500, validation=0)
    tokenizer = mw.Tokenizer.from_path(tmp_path / "data")
    assert tokenizer.cuts_after_lines()
    assert sum(tokenizer.encode_plain(pieces), []) == tokenizer.encode_plain([source])[0]


def test_a_text_file_is_read_in_blocks(tmp_path):
    content = "é ça\n" * 200_000 + "数据 été\n" * 200_000  # characters cross the blocks of 1 MiB
    (tmp_path / "a.txt").write_text(content, encoding="utf-8")
    mw.prepare(tmp_path / "a.txt", tmp_path / "data", vocab=300, validation=0)
    assert decoded(mw.TokenDataset(tmp_path / "data", seq=16)) == [content]


def test_the_same_again_does_nothing_and_another_is_an_error(corpus, tmp_path):
    first = mw.prepare(corpus, tmp_path / "data", vocab=400)
    stamp = (tmp_path / "data" / "dataset.json").stat().st_mtime_ns
    again = mw.prepare(corpus, tmp_path / "data", vocab=400)
    assert again.reused and not first.reused and again.splits == first.splits and "already there" in str(again)
    assert (tmp_path / "data" / "dataset.json").stat().st_mtime_ns == stamp
    with pytest.raises(UserError, match="found one made with vocab=300 where it has 400; use another output or overwrite=True"):
        mw.prepare(corpus, tmp_path / "data", vocab=300)
    (corpus / "more.txt").write_text("more")
    with pytest.raises(UserError, match="other or changed input files"):
        mw.prepare(corpus, tmp_path / "data", vocab=400)
    assert mw.prepare(corpus, tmp_path / "data", vocab=300, overwrite=True).vocab_size == 300
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []


@pytest.mark.parametrize(
    "make, arguments, parts",
    [
        (lambda d: [d / "bok.txt"], {}, ["expected files and folders", "bok.txt', which does not exist", "there is 'book.txt'"]),
        (lambda d: [d / "nots" / "a.txt"], {}, ["which does not exist", "there is 'notes'"]),
        (lambda d: ["one text\nof two lines"], {}, ["which does not exist (a list holds paths; to prepare texts, pass an iterator"]),
        (lambda d: [], {}, ["found no file of a known kind in an empty list"]),
        (lambda d: iter([]), {}, ["found an iterable without items"]),
        (lambda d: iter(["", ""]), {"validation": 0}, ["found only empty documents"]),
        (lambda d: iter(["a", 3]), {}, ["inputs, item 1: expected an object with the field 'text', found int"]),
        (lambda d: iter(["a", "\ud800"]), {}, ["inputs, item 1", "half of a surrogate pair at character 0"]),
        (lambda d: d / "empty", {}, ["found no file of a known kind", "(1 others)"]),
        (lambda d: d / "binary.bin", {}, ["binary.bin, byte 3: expected UTF-8 text, found the byte 0x00", "binary file"]),
        (lambda d: d / "latin.txt", {}, ["latin.txt, byte 3: expected UTF-8 text, found the byte 0xe9"]),
        (lambda d: d / "cut.txt", {}, ["cut.txt, byte 1: expected UTF-8 text, found the byte 0xc3"]),
        (lambda d: d / "bad.jsonl", {"field": "text"}, ["bad.jsonl, line 2: no field 'text' (did you mean 'txt'?); it has 'txt'"]),
        (lambda d: d / "broken.jsonl", {}, ["broken.jsonl, line 1: expected one JSON object per line"]),
        (lambda d: d / "number.jsonl", {}, ["number.jsonl, line 1: expected a string in the field 'text', found int"]),
        (lambda d: d / "damaged.txt.gz", {}, ["damaged.txt.gz: expected a whole gzip file, found a damaged one"]),
        (lambda d: d / "bad.parquet", {}, ["bad.parquet", "parquet"]),
        (lambda d: d / "book.txt", {"tokenizer": "no/such"}, ["tokenizer: expected 'train', a tokenizer.json", "'no/such'"]),
        (lambda d: d / "book.txt", {"tokenizer": "."}, ["expected a folder with tokenizer.json, tokenizer.model", "found none"]),
        (lambda d: d / "book.txt", {"vocab": 256}, ["vocab: expected at least 257", "found 256"]),
        (lambda d: d / "book.txt", {"validation": 1.0}, ["validation: expected a share of at least 0 and below 1, found 1.0"]),
        (lambda d: d / "book.txt", {"validation": lambda name: True}, ["expected documents to train on, found all of them held back"]),
        (lambda d: d / "book.txt", {"validation": lambda name: False}, ["validation=a function to hold back something, found none of 1"]),
    ],
)
def test_bad_input(tmp_path, monkeypatch, make, arguments, parts):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "in"
    (folder / "notes").mkdir(parents=True)
    (folder / "empty").mkdir()
    (folder / "empty" / "a.png").write_bytes(b"\0")
    (folder / "book.txt").write_text("a book\n" * 50)
    (folder / "binary.bin").write_bytes(b"abc\0def")
    (folder / "latin.txt").write_bytes("caf\u00e9 au lait".encode("latin-1"))
    (folder / "cut.txt").write_bytes(b"a\xc3")
    (folder / "bad.jsonl").write_text('{"text": "a"}\n{"txt": "b"}\n')
    (folder / "broken.jsonl").write_text("[1,\n2]\n")
    (folder / "number.jsonl").write_text('{"text": 3}\n')
    (folder / "damaged.txt.gz").write_bytes(gzip.compress(b"text" * 1000)[:-12])
    (folder / "bad.parquet").write_bytes(b"not parquet")
    with pytest.raises(UserError) as error:
        mw.prepare(make(folder), tmp_path / "out", **arguments)
    for part in parts:
        assert part in str(error.value)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["in"]  # nothing is left behind


def test_bad_output(corpus, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="out: cannot make this folder|file: expected a folder|Not a directory"):
        mw.prepare(corpus, tmp_path / "file" / "out")
    with pytest.raises(UserError, match="expected a folder to write, found a file"):
        mw.prepare(corpus, tmp_path / "file")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    with pytest.raises(UserError, match="found one that holds other files"):
        mw.prepare(corpus, tmp_path / "full")
    assert (tmp_path / "full" / "mine.txt").read_text() == "keep"
    (tmp_path / "empty").mkdir()
    mw.prepare(corpus, tmp_path / "empty", vocab=300)


def test_missing_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r'pip install "meshwright\[parquet\]"'):
        mw.prepare(tmp_path / "a.parquet", tmp_path / "out")


@pytest.mark.parametrize("limit", [100, 4000, 20_000])
def test_full_disk(corpus, tmp_path, limit):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(UserError, match="File too large"):
            mw.prepare(iter([text(i) for i in range(30)]) if limit == 100 else corpus, tmp_path / "data", vocab=400)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [entry.name for entry in tmp_path.iterdir()] == ["corpus"]


def test_command_line(corpus, tmp_path):
    command = [sys.executable, "-c", "import sys; from meshwright.cli.main import main; sys.exit(main(sys.argv[1:]))"]
    arguments = ["prepare", str(corpus), f"output={tmp_path / 'data'}", "vocab=300", "validation=0.1"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert "250 documents" in done.stdout and "vocabulary 300" in done.stdout
