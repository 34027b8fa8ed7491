"""Tokenizers from GGUF metadata against the vocabularies that the metadata was made of."""

from __future__ import annotations

import json

import numpy as np
import pytest
import sentencepiece
import transformers
from meshwright import UserError
from meshwright.data.byte_level import CUTTINGS
from meshwright.data.gguf_tokenizer import PRE_TOKENIZERS, tokenizer_from_gguf
from meshwright.data.sentencepiece_model import read_piece_model
from tokenizer_samples import byte_level_vocabulary, passages, sentencepiece_file

PREFIX = "tokenizer.ggml."
PLAIN = dict(model_type="bpe", byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False)
CHAT = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


def keys(**values):
    return {PREFIX + name: value for name, value in values.items()}


@pytest.fixture(scope="module")
def llama():
    data = sentencepiece_file(**PLAIN)
    model = read_piece_model(data, "x")
    metadata = keys(
        model="llama",
        tokens=model.pieces,
        scores=np.array(model.scores, np.float32),
        token_type=np.array(model.types, np.int32),
        bos_token_id=np.uint32(1),
        eos_token_id=2,
        unknown_token_id=0,
    )
    return data, metadata


def byte_level(pre, special=("<|endoftext|>", "<|im_start|>", "<|im_end|>")):
    backend = byte_level_vocabulary(CUTTINGS[PRE_TOKENIZERS[pre]].patterns)
    layout = json.loads(backend.to_str())["model"]
    tokens = [*sorted(layout["vocab"], key=layout["vocab"].__getitem__), *special, "<tool>", "[PAD904]"]
    merges = [" ".join(pair) for pair in layout["merges"]]
    types = [1] * 900 + [3] * len(special) + [4, 5]
    return backend, keys(model="gpt2", pre=pre, tokens=tokens, merges=merges, token_type=types, eos_token_id=902, eot_token_id=900)


def error_of(metadata) -> str:
    with pytest.raises(UserError) as error:
        tokenizer_from_gguf(metadata, "a.gguf")
    return str(error.value)


def test_a_sentencepiece_vocabulary(llama, tmp_path):
    data, metadata = llama
    oracle = sentencepiece.SentencePieceProcessor(model_proto=data)
    ours = tokenizer_from_gguf(metadata)
    for text in passages():
        assert ours.encode(text) == [1, *oracle.encode(text)], text
        assert ours.decode(oracle.encode(text)) == oracle.decode(oracle.encode(text))
    assert ours.special_tokens == {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"} and ours.eos_token_ids == [2]
    assert tokenizer_from_gguf({**metadata, PREFIX + "add_bos_token": False}).encode("hi")[0] != 1
    assert tokenizer_from_gguf({**metadata, PREFIX + "add_eos_token": True}).encode("hi")[-1] == 2
    ours.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert all(theirs(text)["input_ids"] == ours.encode(text) for text in passages())


def test_gemma_has_no_space_in_front():
    data = sentencepiece_file(**PLAIN, add_dummy_prefix=False, user_defined_symbols=["<start_of_turn>", "\n\n", "▁▁"])
    model = read_piece_model(data, "x")
    oracle = sentencepiece.SentencePieceProcessor(model_proto=data)
    ours = tokenizer_from_gguf(
        keys(model="llama", tokens=model.pieces, scores=model.scores, token_type=model.types, add_space_prefix=False, bos_token_id=1)
    )
    for text in [*passages(), "<start_of_turn>user\n\nhello  you"]:
        assert ours.encode(text) == [1, *oracle.encode(text)], text


@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
def test_a_byte_level_vocabulary(pre):
    backend, metadata = byte_level(pre)
    ours = tokenizer_from_gguf(metadata)
    assert ours.vocab_size == 905 and ours.eos_token == "<|im_end|>" and ours.eos_token_ids == [902, 900]
    for text in passages():
        if not CUTTINGS[PRE_TOKENIZERS[pre]].composed:
            assert ours.encode_plain([text]) == [backend.encode(text).ids], text
        assert ours.decode(ours.encode(text)) == text or CUTTINGS[PRE_TOKENIZERS[pre]].composed
    assert ours.encode("a<|im_end|>b<tool>")[-3:] == [902, *backend.encode("b").ids, 903]
    assert 902 not in ours.encode_plain(["a<|im_end|>b"])[0] and "<tool>" in ours.decode([903, 902])


@pytest.mark.parametrize("pre, kind", [("qwen2", "Qwen2Tokenizer"), ("gpt-2", "GPT2Tokenizer")])
def test_byte_level_as_transformers(pre, kind, tmp_path):
    _, metadata = byte_level(pre)
    tokens = metadata[PREFIX + "tokens"]
    (tmp_path / "vocab.json").write_text(json.dumps({token: id for id, token in enumerate(tokens[:900])}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(metadata[PREFIX + "merges"]) + "\n")
    theirs, ours = getattr(transformers, kind).from_pretrained(tmp_path), tokenizer_from_gguf(metadata)
    for text in passages():
        assert theirs(text)["input_ids"] == ours.encode(text), text


def test_llama_3_begins_with_a_token():
    _, metadata = byte_level("llama-bpe")
    assert tokenizer_from_gguf({**metadata, PREFIX + "bos_token_id": 900}).encode("hi")[0] == 900
    assert tokenizer_from_gguf(metadata).encode("hi")[0] != 900
    assert tokenizer_from_gguf({**metadata, PREFIX + "bos_token_id": 900, PREFIX + "add_bos_token": False}).encode("hi")[0] != 900


def test_chat_templates(llama):
    _, metadata = llama
    messages = [{"role": "user", "content": "hi"}]
    one = tokenizer_from_gguf({**metadata, "tokenizer.chat_template": CHAT})
    assert one.apply_chat_template(messages, tokenize=False) == "<|im_start|>user\nhi<|im_end|>\n"
    two = tokenizer_from_gguf({**metadata, "tokenizer.chat_template": CHAT, "tokenizer.chat_template.tool_use": "tools"})
    assert two.chat_templates == {"default": CHAT, "tool_use": "tools"}
    assert two.apply_chat_template(messages, tools=[{}], tokenize=False) == "tools"
    with pytest.raises(UserError, match="expected a chat template"):
        tokenizer_from_gguf(metadata).apply_chat_template(messages)


def test_what_is_wrong_is_named(llama):
    _, spm = llama
    _, bpe = byte_level("gpt-2")
    assert "a.gguf, tokenizer.ggml.model: expected 'llama' (SentencePiece) or 'gpt2' (byte-level BPE), found none" in error_of({})
    assert "found 'rwkv'" in error_of({**spm, PREFIX + "model": "rwkv"})
    message = error_of({**bpe, PREFIX + "pre": "qwen"})
    assert "expected one of default, gpt-2, llama3" in message and "found 'qwen' (did you mean 'qwen2'?)" in message
    assert "tokens: expected a list, found none" in error_of({**bpe, PREFIX + "tokens": None})
    assert "tokens: expected tokens, found an empty list" in error_of({**bpe, PREFIX + "tokens": []})
    assert "tokens, entry 1: expected a str, found 3" in error_of({**bpe, PREFIX + "tokens": ["a", 3]})
    assert "scores: expected 800 entries, one for each token, found 1" in error_of({**spm, PREFIX + "scores": [0.0]})
    assert "scores, entry 0: expected a float, found nan" in error_of({**spm, PREFIX + "scores": [float("nan")] * 800})
    assert "token_type: expected a list, found str" in error_of({**spm, PREFIX + "token_type": "x" * 800})
    assert "eos_token_id: expected an id below 905, found 905" in error_of({**bpe, PREFIX + "eos_token_id": 905})
    assert "eos_token_id: expected a whole number, found 'x'" in error_of({**bpe, PREFIX + "eos_token_id": "x"})
    assert "add_bos_token: expected true or false, found 1" in error_of({**bpe, PREFIX + "add_bos_token": 1})
    merges = bpe[PREFIX + "merges"]
    assert "merges, entry 1: expected two tokens that make a third, found 'ab'" in error_of({**bpe, PREFIX + "merges": [merges[0], "ab"]})
    doubled = [*bpe[PREFIX + "tokens"][:-1], "<tool>"]
    assert "tokens: expected every token once, found '<tool>' at 903 and 904" in error_of({**bpe, PREFIX + "tokens": doubled})
    assert "expected one unknown piece, at id 5" in error_of({**spm, PREFIX + "unknown_token_id": 5})
