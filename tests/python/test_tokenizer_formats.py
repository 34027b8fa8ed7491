"""SentencePiece and tiktoken files against their own libraries and transformers: same ids, same text; damaged ones are errors."""

from __future__ import annotations

import base64
import json
import random

import meshwright as mw
import pytest
import sentencepiece
import tiktoken
import transformers
from meshwright import UserError
from meshwright.data.byte_level import CUTTINGS
from meshwright.data.sentencepiece_model import read_piece_model
from meshwright.data.tiktoken_ranks import ENCODINGS, special_ids
from tokenizer_samples import byte_level_vocabulary, passages, ranks_file, ranks_of, sentencepiece_file

PLAIN = dict(normalization_rule_name="identity", remove_extra_whitespaces=False)
MODELS = {
    "llama": dict(model_type="bpe", byte_fallback=True, split_digits=True, allow_whitespace_only_pieces=True, **PLAIN),
    "gemma": dict(
        model_type="bpe",
        byte_fallback=True,
        add_dummy_prefix=False,
        user_defined_symbols=["<sep>", "<user>", "▁▁", "▁▁▁▁", "\n", "\n\n"],
        pad_id=3,
        **PLAIN,
    ),
    "bpe_with_own_pieces": dict(model_type="bpe", byte_fallback=True, user_defined_symbols=["<sep>", "<user>"], **PLAIN),
    "bpe_normalized": dict(model_type="bpe"),
    "unigram": dict(model_type="unigram"),
    "unigram_bytes": dict(model_type="unigram", byte_fallback=True, **PLAIN),
    "unigram_with_own_pieces": dict(model_type="unigram", user_defined_symbols=["<sep>", "<user>"], add_dummy_prefix=False),
}


@pytest.fixture(scope="module")
def models():
    return {name: sentencepiece_file(**options) for name, options in MODELS.items()}


@pytest.fixture(scope="module")
def ranks():
    return {name: ranks_of(byte_level_vocabulary(CUTTINGS[encoding.cutting].patterns)) for name, encoding in ENCODINGS.items()}


def write(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return folder


def error_of(call) -> str:
    with pytest.raises(UserError) as error:
        call()
    return str(error.value)


# ---- SentencePiece ----


@pytest.mark.parametrize("name", MODELS)
def test_sentencepiece_files_encode_as_sentencepiece(models, name, tmp_path):
    oracle = sentencepiece.SentencePieceProcessor(model_proto=models[name])
    ours = mw.Tokenizer.from_path(write(tmp_path, {"tokenizer.model": models[name]}))
    assert ours.vocab_size == oracle.vocab_size() and ours.eos_token_id == oracle.eos_id()
    for text in passages():
        expected = oracle.encode(text)
        (found,) = ours.encode_plain([text])
        if "unigram" in name and found != expected:
            # Of equally probable cuts ("##"+"#", "#"+"##"), rounding chooses: float32 there, float64 here.
            assert oracle.decode(found) == oracle.decode(expected), text
            assert sum(map(oracle.get_score, found)) == pytest.approx(sum(map(oracle.get_score, expected)), rel=1e-6), text
            expected = found
        assert found == expected, text
        assert ours.encode(text) == [oracle.bos_id(), *expected] or "<s>" in text
        if oracle.unk_id() not in expected:
            assert ours.decode(expected) == oracle.decode(expected), text


def test_special_tokens_in_a_text(models, tmp_path):
    oracle = sentencepiece.SentencePieceProcessor(model_proto=models["llama"])
    ours = mw.Tokenizer.from_path(write(tmp_path, {"tokenizer.model": models["llama"]}))
    assert ours.encode("<s>hello</s> you") == [1, *ours.encode("<s>hello</s> you", add_special_tokens=False)]
    after = [id for id in oracle.encode("x hello") if id not in oracle.encode("x")]
    assert ours.encode("</s> hello", add_special_tokens=False) == [2, *after]
    assert 2 not in ours.encode_plain(["</s> hello"])[0] and ours.decode([1, *oracle.encode("hi you"), 2]) == "hi you"


@pytest.mark.parametrize("name, kind", [("llama", "LlamaTokenizer"), ("gemma", "GemmaTokenizer")])
def test_sentencepiece_files_encode_as_transformers(models, name, kind, tmp_path):
    config = {"tokenizer_class": kind, "add_bos_token": True, "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    folder = write(tmp_path / "given", {"tokenizer.model": models[name], "tokenizer_config.json": config})
    theirs, ours = transformers.AutoTokenizer.from_pretrained(folder), mw.Tokenizer.from_path(folder)
    ours.save(tmp_path)
    again, reopened = transformers.AutoTokenizer.from_pretrained(tmp_path), mw.Tokenizer.from_path(tmp_path)
    assert (tmp_path / "tokenizer.model").read_bytes() == models[name]
    for text in [*passages(), "<s>hello</s> you", "hello <unk> you</s></s>"]:
        # transformers drops the prefix of a text that begins with a space, and merges pieces that stand for themselves; SentencePiece does
        # neither (above).
        if not text.startswith((" ", "▁")) and (name == "llama" or not any(piece in text for piece in ("  ", "\n", "▁"))):
            assert theirs(text)["input_ids"] == again(text)["input_ids"] == ours.encode(text), text
        assert reopened.encode(text) == ours.encode(text)


def test_a_lone_file_is_saved_for_transformers(models, tmp_path):
    ours = mw.Tokenizer.from_path(write(tmp_path / "given", {"tokenizer.model": models["llama"]}) / "tokenizer.model")
    ours.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir() if file.is_file()) == [
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
    ]
    for text in passages():
        assert theirs(text)["input_ids"] == ours.encode(text), text
    assert (theirs.bos_token, theirs.eos_token, theirs.unk_token) == ("<s>", "</s>", "<unk>")


def test_what_the_configuration_says(models, tmp_path):
    files = {"tokenizer.model": models["llama"]}
    bare = mw.Tokenizer.from_path(write(tmp_path / "bare", files))
    config = {"add_bos_token": False, "add_eos_token": True, "eos_token": {"content": "<end>"}}
    config["added_tokens_decoder"] = {"800": {"content": "<end>", "special": True}, "801": {"content": "plain", "special": False}}
    more = mw.Tokenizer.from_path(write(tmp_path / "more", {**files, "tokenizer_config.json": config}))
    hello = bare.encode("hello", add_special_tokens=False)
    assert bare.encode("hello") == [1, *hello] and more.encode("hello") == [*hello, 800]
    assert more.eos_token_id == 800 and more.vocab_size == 802 and 801 in more.encode("a plain text")
    assert more.decode([800, 801]) == "plain"
    old = mw.Tokenizer.from_path(write(tmp_path / "old", {**files, "added_tokens.json": {"<pad>": 800}}))
    assert old.encode("<pad>", add_special_tokens=False) == [800]
    no_prefix = mw.Tokenizer.from_path(write(tmp_path / "no_prefix", {**files, "tokenizer_config.json": {"add_prefix_space": False}}))
    pieces = [no_prefix.backend.id_to_token(id) for id in no_prefix.encode("hello")]
    assert "".join(pieces) == "<s>hello" and no_prefix.decode(no_prefix.encode(" hello")) == " hello"
    legacy = mw.Tokenizer.from_path(write(tmp_path / "legacy", {**files, "tokenizer_config.json": {"legacy": True}}))
    assert legacy.encode("</s>hello") == [1, 2, *hello] != bare.encode("</s>hello")
    listed = mw.Tokenizer.from_path(write(tmp_path / "bare", {"generation_config.json": {"eos_token_id": [2, 7]}}))
    assert listed.eos_token_ids == [2, 7] and bare.eos_token_ids == [2]


def test_tokenizer_json_comes_first(models, ranks, tmp_path):
    write(tmp_path, {"tokenizer.model": models["llama"], "cl100k_base.tiktoken": ranks_file(ranks["cl100k_base"])})
    assert mw.Tokenizer.from_path(tmp_path).source.endswith("tokenizer.model")
    mw.Tokenizer.train(["abc"], 300).save(tmp_path)
    loaded = mw.Tokenizer.from_path(tmp_path)
    assert loaded.source.endswith("tokenizer.json") and loaded.vocab_size <= 300
    assert loaded.files["tokenizer.model"] == models["llama"]  # kept beside it, as it is
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "tokenizer.model").unlink()
    assert mw.Tokenizer.from_path(tmp_path).source.endswith(".tiktoken")
    (tmp_path / "o200k_base.tiktoken").write_bytes(b"")
    assert "found cl100k_base.tiktoken, o200k_base.tiktoken" in error_of(lambda: mw.Tokenizer.from_path(tmp_path))


def test_preparing_with_a_sentencepiece_file(models, tmp_path):
    folder = write(tmp_path / "model", {"tokenizer.model": models["llama"]})
    texts = ["one  text\n", " another </s> one", "日本語 🙂"]
    mw.prepare(iter(texts), tmp_path / "data", tokenizer=folder, validation=0)
    tokens, starts = mw.TokenDataset(tmp_path / "data", seq=8).documents()
    oracle = sentencepiece.SentencePieceProcessor(model_proto=models["llama"])
    assert tokens.tolist() == sum(([1, *oracle.encode(text), 2] for text in texts), [])
    assert mw.TokenDataset(tmp_path / "data", seq=8).tokenizer.files["tokenizer.model"] == models["llama"]


def varint(number):
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def piece(text, score=0.0, kind=1):
    import struct

    body = b"\x0a" + varint(len(text.encode())) + text.encode() + b"\x15" + struct.pack("<f", score) + b"\x18" + varint(kind)
    return b"\x0a" + varint(len(body)) + body


UNKNOWN = piece("<unk>", kind=2)
BPE = b"\x12\x02\x18\x02"


@pytest.mark.parametrize(
    "data, part",
    [
        (UNKNOWN[:-1], "where"),
        (b"\x0a", "it ends inside a field"),
        (b"\x0a\xff\xff\xff\xff\x0f", "a field of 4294967295 bytes where 0 are left"),
        (b"\x0a" + b"\xff" * 11, "more than 64 bits"),
        (b"\x0b\x01", "unknown wire type 3"),
        (b"\x02\x00", "the number 0"),
        (b"\x0a\x04\x0a\x02\xff\xfe", "not UTF-8"),
        (b"\x0a\x02\x08\x01", "another type"),
        (b"\x12\x00", "found no pieces"),
        (piece("a") + BPE, "expected one unknown piece, at id 0, found none"),
        (UNKNOWN + piece("a") + piece("a") + BPE, "expected every piece once, found 'a' at the ids 1 and 2"),
        (UNKNOWN + piece("") + BPE, "found an empty one at id 1"),
        (UNKNOWN + piece("a", kind=9) + BPE, "found 9 at id 1"),
        (UNKNOWN + piece("a", score=float("nan")) + BPE, "not a finite number"),
        (UNKNOWN + piece("a") + b"\x12\x02\x18\x03", "of the type unigram or BPE, found word"),
        (UNKNOWN + piece("a") + b"\x12\x05\x18\x02\x98\x02\x01", "a piece for each of 256 bytes"),
        (UNKNOWN + piece("a") + b"\x12\x05\x18\x02\xc0\x01\x01", "space as a suffix"),
        (UNKNOWN + piece("a") + BPE + b"\x1a\x02\x28\x00", "found a model that keeps them"),
        (UNKNOWN + piece("a") + piece("ab", kind=5) + piece("b") + piece("abb") + BPE, "expected unused pieces that are in no other"),
        (UNKNOWN + b"".join(piece(f"{i}" + "a" * 30_000) for i in range(2)) + BPE, "so many long ones"),
    ],
)
def test_damaged_sentencepiece_files(data, part, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(data)
    message = error_of(lambda: mw.Tokenizer.from_path(tmp_path))
    assert part in message and "tokenizer.model" in message


def test_sentencepiece_files_damaged_anywhere(models):
    rng = random.Random(0)
    whole = models["llama"]
    read_piece_model(whole, "x")
    for _ in range(1500):
        data = bytearray(whole[: rng.randrange(len(whole))] if rng.random() < 0.5 else whole)
        for _ in range(rng.randrange(3)):
            if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            read_piece_model(bytes(data), "x")
        except UserError:
            pass


# ---- tiktoken ----


@pytest.mark.parametrize("name", ENCODINGS)
def test_tiktoken_files_encode_as_tiktoken(ranks, name, tmp_path):
    special = special_ids(ENCODINGS[name], len(ranks[name]))
    (pattern,) = CUTTINGS[ENCODINGS[name].cutting].patterns
    oracle = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks[name], special_tokens=special)
    ours = mw.Tokenizer.from_path(write(tmp_path, {"tokenizer.model": ranks_file(ranks[name])}), encoding=name)
    assert ours.vocab_size == oracle.n_vocab
    first = [special[ENCODINGS[name].bos]] if name in ("llama3", "llama4") else []
    for text in [*passages(), "hi" + "".join(list(special)[:9]) + " you", "<|eot_id|><|endoftext|> x"]:
        assert ours.encode_plain([text]) == [oracle.encode(text, disallowed_special=())], text
        assert ours.encode(text) == first + oracle.encode(text, allowed_special="all"), text
        assert ours.decode(oracle.encode(text, allowed_special="all"), skip_special_tokens=False) == text
    ours.save(tmp_path)
    reopened, theirs = mw.Tokenizer.from_path(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in passages():
        assert reopened.encode(text) == theirs(text)["input_ids"] == ours.encode(text), text
    assert reopened.eos_token_id == theirs.eos_token_id == special[ENCODINGS[name].eos]


@pytest.mark.parametrize("name", ["cl100k_base", "o200k_base", "r50k_base"])
def test_patterns_cut_as_the_published_ones(name):
    """tiktoken writes the same patterns with possessive quantifiers."""
    import regex
    from tiktoken_ext import openai_public

    published = {}
    original = openai_public.load_tiktoken_bpe
    openai_public.load_tiktoken_bpe = lambda *_, **__: {}
    try:
        published = openai_public.ENCODING_CONSTRUCTORS[name]()
    finally:
        openai_public.load_tiktoken_bpe = original
    (pattern,) = CUTTINGS[{"cl100k_base": "cl100k", "o200k_base": "o200k", "r50k_base": "gpt2"}[name]].patterns
    for text in passages():
        assert regex.findall(pattern, text) == regex.findall(published["pat_str"], text), text
    encoding = ENCODINGS["o200k_harmony" if name == "o200k_base" else name]
    assert published["special_tokens"].items() <= encoding.special().items()
    if name == "o200k_base":
        openai_public.load_tiktoken_bpe = lambda *_, **__: {}
        try:
            harmony = openai_public.o200k_harmony()["special_tokens"]
        finally:
            openai_public.load_tiktoken_bpe = original
        assert encoding.special().items() <= harmony.items() and harmony.keys() - encoding.special().keys() == {"<|reserved_200018|>"}


def test_special_tokens_of_the_published_vocabularies():
    llama3, llama4 = ENCODINGS["llama3"].special(), ENCODINGS["llama4"].special()
    assert (llama3["<|begin_of_text|>"], llama3["<|start_header_id|>"], llama3["<|eot_id|>"]) == (128000, 128006, 128009)
    assert sorted(llama3.values()) == list(range(128000, 128256)) and llama3["<|reserved_special_token_247|>"] == 128255
    assert sorted(llama4.values()) == list(range(200000, 202048)) and llama4["<|eot|>"] == 200008
    assert (llama4["<|image_start|>"], llama4["<|finetune_right_pad|>"], llama4["<|image|>"]) == (200080, 200018, 200090)


def test_which_vocabulary_a_tiktoken_file_is(ranks, tmp_path):
    data = ranks_file(ranks["llama3"])
    folder = write(tmp_path / "a", {"tokenizer.model": data})
    message = error_of(lambda: mw.Tokenizer.from_path(folder))
    assert "llama3 (128000)" in message and "found 900 tokens" in message and "encoding=NAME" in message
    assert "found 'lama3' (did you mean 'llama3'?)" in error_of(lambda: mw.Tokenizer.from_path(folder, encoding="lama3"))
    write(folder, {"config.json": {"model_type": "llama"}})
    assert mw.Tokenizer.from_path(folder).special_tokens == {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}
    named = write(tmp_path / "b", {"o200k_base.tiktoken": ranks_file(ranks["o200k_harmony"])})
    assert mw.Tokenizer.from_path(named).eos_token == "<|return|>"
    decoder = {str(900 + i): {"content": f"<|t{i}|>", "special": True} for i in range(3)}
    write(folder, {"tokenizer_config.json": {"added_tokens_decoder": decoder, "eos_token": "<|t2|>"}})
    loaded = mw.Tokenizer.from_path(folder)
    assert loaded.vocab_size == 903 and loaded.eos_token_id == 902
    assert "a SentencePiece model" in error_of(
        lambda: mw.Tokenizer.from_path(write(tmp_path / "c", {"tokenizer.model": UNKNOWN + piece("a") + BPE}), encoding="llama3")
    )


def lines_of(ranks):
    return ranks_file(ranks).splitlines(keepends=True)


@pytest.mark.parametrize(
    "change, part",
    [
        (lambda lines: [*lines, b"!!!! 900\n"], "line 901: expected a token in base64 and its rank, found '!!!! 900'"),
        (lambda lines: [*lines, b"YWJj\n"], "line 901: expected a token in base64 and its rank, found 'YWJj'"),
        (lambda lines: [*lines, b"YWJj -3\n"], "found 'YWJj -3'"),
        (lambda lines: [*lines, b"YWJj 1 2\n"], "found 'YWJj 1 2'"),
        (lambda lines: [*lines, b"YWJj " + b"9" * 9000 + b"\n"], "line 901: expected a token in base64"),
        (lambda lines: [*lines, b"\xff\xfe 900\n"], r"found '\\xff\\xfe 900'"),
        (lambda lines: [*lines, lines[5]], "line 901: expected every token once"),
        (lambda lines: [*lines, base64.b64encode(b"~" * 5000) + b" 900\n"], "expected a token of 1 to 4096 bytes, found 5000"),
        (lambda lines: [*lines, base64.b64encode(b"~~zz~~") + b" 899\n"], "expected the ranks 0 to 900, each once"),
        (lambda lines: lines[3:], "expected a token for each of 256 bytes, found none for 3"),
        (lambda lines: [b"hello there\n"], "line 1: expected a token in base64"),
    ],
)
def test_damaged_tiktoken_files(ranks, change, part, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"".join(change(lines_of(ranks["llama3"]))))
    assert part in error_of(lambda: mw.Tokenizer.from_path(tmp_path, encoding="llama3"))


@pytest.mark.parametrize(
    "files, part",
    [
        ({"tokenizer_config.json": b"{"}, "tokenizer_config.json: expected JSON"),
        ({"tokenizer_config.json": b"[]"}, "tokenizer_config.json: expected a JSON object, found list"),
        ({"tokenizer_config.json": b"[" * 100_000}, "tokenizer_config.json: expected JSON"),
        ({"tokenizer_config.json": {"added_tokens_decoder": []}}, "expected an object of tokens by id, found list"),
        ({"tokenizer_config.json": {"added_tokens_decoder": {"x": {"content": "y"}}}}, "expected token ids of added tokens, found 'x'"),
        ({"tokenizer_config.json": {"added_tokens_decoder": {"800": {"content": 3}}}}, "expected a token with its content"),
        ({"tokenizer_config.json": {"added_tokens_decoder": {"900": {"content": "~new"}}}}, "'~new' at id 800, found it at id 900"),
        ({"tokenizer_config.json": {"added_tokens_decoder": {"5": {"content": "</s>"}}}}, "'</s>' at id 2, found it at id 5"),
        ({"added_tokens.json": {"y": -1}}, "added_tokens.json: expected token ids of added tokens, found -1"),
        ({"generation_config.json": {"eos_token_id": "two"}}, "generation_config.json, 'eos_token_id': expected a token id"),
    ],
)
def test_files_beside_a_tokenizer_that_are_wrong(models, files, part, tmp_path):
    write(tmp_path, {"tokenizer.model": models["llama"], **files})
    assert part in error_of(lambda: mw.Tokenizer.from_path(tmp_path))
