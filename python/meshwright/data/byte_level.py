"""Byte-level BPE of the published families: the patterns that cut a text into words before merging, and the backend around them.

A pattern list is applied one after another: what a pattern finds stands alone, what lies between goes to the next. Sources: the
`tokenizer.json` files of the models, github.com/openai/tiktoken, github.com/ggml-org/llama.cpp (names of `tokenizer.ggml.pre`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from meshwright._core import UserError

_ENDINGS = "'s|'t|'re|'ve|'m|'ll|'d"
_SPACES = r"\s+(?!\S)|\s+"
_GPT2 = rf"{_ENDINGS}| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|{_SPACES}"
_WORDS_THEN_SIGNS = rf"(?i:{_ENDINGS})|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|%s| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|%s\s*[\r\n]+|{_SPACES}"
_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
_O200K = (
    rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]*[{_LOWER}]+(?i:{_ENDINGS})?|[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]+[{_LOWER}]*(?i:{_ENDINGS})?"
    rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|{_SPACES}"
)
# Letters of alphabets with upper and lower case.
_CASED = (
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\u1f7dᾀ-ᾴᾶ-ᾼ\u1fbeῂ-ῄῆ-ῌῐ-\u1fd3ῖ-\u1fdb"
    "ῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u2126ℨ\u212a-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃"
)
_SIGNS = "!-/:-~！-／：-～‘-‟\u3000-。"
_EAST_ASIAN = "[一-龥ࠀ-一가-\ud7ff]+"


@dataclass(frozen=True)
class Cutting:
    """How text is prepared for a byte-level vocabulary."""

    patterns: tuple[str, ...]
    whole_words: bool = False
    """Whether a word that is a token is taken without merging."""
    add_bos: bool = False
    composed: bool = False
    """Whether text is brought to Unicode's composed form (NFC) first."""


CUTTINGS = {
    "gpt2": Cutting((_GPT2,)),
    "llama3": Cutting((_WORDS_THEN_SIGNS % (r"\p{N}{1,3}", ""),), whole_words=True, add_bos=True),
    # tiktoken keeps the space at the end of a text together.
    "cl100k": Cutting((_WORDS_THEN_SIGNS % (r"\p{N}{1,3}", r"\s+(?![\s\S])|"),), whole_words=True),
    "o200k": Cutting((_O200K,), whole_words=True),
    "llama4": Cutting((_O200K,), whole_words=True, add_bos=True),
    "qwen2": Cutting((_WORDS_THEN_SIGNS % (r"\p{N}", ""),), composed=True),
    "deepseek-llm": Cutting((r"[\r\n]", rf"\s?[{_CASED}]+", rf"\s?[{_SIGNS}]+", r"\s+$", _EAST_ASIAN, r"\p{N}")),
    "deepseek-coder": Cutting((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _EAST_ASIAN, r"\p{N}")),
    "deepseek-v3": Cutting(
        (
            r"\p{N}{1,3}",
            "[一-龥぀-ゟ゠-ヿ]+",
            r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|"
            + _SPACES,
        )
    ),
    # What llama.cpp does with files that name no pre-tokenizer of their own.
    "default": Cutting((r"[\p{P}\$\+<=>\^~\|]+", _GPT2.removesuffix(r"|\s+"), r"\p{N}+", "[0-9][0-9][0-9]")),
}


def byte_level_backend(
    vocab: Mapping[str, int], merges: Sequence[tuple[str, str]], cutting: Cutting, special: Sequence[str], plain: Sequence[str], source: str
) -> Any:
    """A `tokenizers.Tokenizer` for byte-level tokens -> ids; `special` and `plain` tokens of the vocabulary are found whole in a text."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    try:
        model = models.BPE(vocab=dict(vocab), merges=list(merges), fuse_unk=False, ignore_merges=cutting.whole_words)
    except Exception as error:
        raise UserError(f"{source}: expected merges of tokens in the vocabulary, found otherwise: {error}") from None
    tokenizer = Tokenizer(model)
    if cutting.composed:
        tokenizer.normalizer = normalizers.NFC()
    cuts: list[Any] = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in cutting.patterns]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*cuts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in plain])
    return tokenizer
