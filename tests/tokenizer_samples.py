"""Small vocabularies trained on this repository's documents, and texts that tokenizers tend to get wrong."""

from __future__ import annotations

import base64
import io
from functools import cache
from pathlib import Path
from typing import Any

from meshwright.data.bpe_merges import BYTE_CHARACTERS

ROOT = Path(__file__).resolve().parents[1]
MIXED = "naïve café über straße, 日本語のテキスト, emoji 🙂🙃 don't WE'LL I'M x != y ///\n/ 12345 ǅ ﬁ Å\n" * 40
TRICKY = [
    *["", " ", "  ", "Hello", " Hello", "  Hello world", "Hello  world   ", "\n", "\n\n", "a\nb", " \n ", "\t\tx", "\r\n", "\x00\x01"],
    *["def f(x):\n    return x + 1\n", "naïve café", "日本語", "🙂🙃👩‍👩‍👧", "ﬁne ½ Å ℌ", "e\u0301", "<0x0A>", "▁x", "▁▁", "x▁y"],
    *["a" * 50, "a" * 51, " " * 33 + "x", "\u200b\u00a0x\u3000", "<sep>start", "x<sep>y <sep> z", "aa<user>b<user><user>"],
    *["don't we'll I'M", "x!\n/y", "1234567", "ǅabc ABCdef", "🙂" * 9, "ö" * 30, "\u0e2a\u0e27\u0e31\u0e2a", "\ufeffx"],
]


@cache
def corpus() -> str:
    return "".join(page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs").rglob("*.md"))) + MIXED


def passages() -> list[str]:
    text = corpus()
    return [*TRICKY, *(text[i : i + 700] for i in range(0, min(len(text), 300_000), 3511))]


def sentencepiece_file(model_type: str, vocab_size: int = 800, **options: Any) -> bytes:
    import sentencepiece

    out = io.BytesIO()
    lines = [line for line in corpus().split("\n") if line.strip()]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=out, model_type=model_type, vocab_size=vocab_size, minloglevel=2, **options
    )
    return out.getvalue()


def byte_level_vocabulary(patterns: tuple[str, ...], vocab_size: int = 900) -> Any:
    """A `tokenizers` BPE of bytes, trained behind these patterns."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    cuts = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]
    backend.pre_tokenizer = pre_tokenizers.Sequence([*cuts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend.train_from_iterator([corpus()], trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False))
    return backend


def ranks_of(backend: Any) -> dict[bytes, int]:
    """The vocabulary of a byte-level backend as tiktoken has it."""
    back = {character: byte for byte, character in BYTE_CHARACTERS.items()}
    ids = backend.get_vocab()
    return {bytes(back[character] for character in token): ids[token] for token in sorted(ids, key=ids.__getitem__)}


def ranks_file(ranks: dict[bytes, int]) -> bytes:
    return b"".join(base64.b64encode(token) + b" %d\n" % rank for token, rank in ranks.items())
