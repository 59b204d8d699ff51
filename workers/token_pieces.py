"""Counts tokens by pieces: texts are cut before spaces, and each different piece is counted once.

Owns the proof that this is exact. A piece begins where a space follows an ASCII character that is none, or where the
text begins, so runs of white space stay whole, with the character after them. A tokenizer whose pre-tokenizer never
puts such a character and such a space into one word makes the same tokens of the pieces as of the whole text, for its
model sees words alone. Which tokenizers those are, is decided by a list. One that splits nothing into words, as of
Gemma, does so too if no token of its vocabulary reaches over a cut: pairs are then never merged across one. Every other
one counts whole texts. Must not import ray, vllm, torch or transformers.
"""

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Ints = npt.NDArray[np.int64]
_SPACE, _DELETE = 0x20, 0x7F
_MARK = "\u2581"  # SentencePiece's for a space
_SPLIT_BY_SPACES = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORD_TAIL = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_LOWER, _UPPER = r"\p{Ll}\p{Lm}\p{Lo}\p{M}", r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}"


def _cased(contractions: str, digits: str) -> str:
    return (
        rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]*[{_LOWER}]+{contractions}|"
        rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]+[{_LOWER}]*{contractions}|"
        rf"{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_WORD_TAIL}"
    )


PATTERNS = frozenset(
    {
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        *(
            rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_WORD_TAIL}"
            for digits in (r"\p{N}", r"\p{N}{1,3}")
        ),
        _cased(f"{_CONTRACTIONS}?", r"\p{N}{1,3}"),
        _cased("", r"\p{N}"),
    }
)
"""What GPT-2, Qwen 2 and 3, Llama 3, GPT-4o and Mistral's Tekken split words by. In none of them does an alternative
match anything but line breaks after a character that is no white space and neither a letter nor a number, nor any white
space after those that are; all look ahead from white space only, to what is in the same piece."""

_BLIND = ("ByteLevel", "Digits", "Split", "Punctuation")
"""Pre-tokenizers that do with a word what they would do wherever it stood."""


def counts_add_up(tokenizer: dict[str, Any]) -> bool:
    """Whether the tokens of a text are those of its pieces.

    Args:
        tokenizer: the content of tokenizer.json.
    """
    splits = _is_plain(tokenizer.get("normalizer")) and _cuts_before_spaces(tokenizer.get("pre_tokenizer"))
    return (
        (splits or _merges_within_cuts(tokenizer))
        and not (tokenizer.get("model") or {}).get("dropout")
        and all(_is_local(token) for token in tokenizer.get("added_tokens") or [])
        and not tokenizer.get("truncation")
        and not tokenizer.get("padding")
    )


def _is_plain(normalizer: dict[str, Any] | None) -> bool:
    # a space composes with nothing before it
    return normalizer is None or normalizer["type"] == "NFC"


def _cuts_before_spaces(pre_tokenizer: dict[str, Any] | None) -> bool:
    match pre_tokenizer:
        case {"type": "ByteLevel"}:
            return bool(pre_tokenizer.get("use_regex", True))
        case {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}:
            return pattern in PATTERNS
        case {"type": "Sequence", "pretokenizers": [first, *rest]}:
            if not all(each["type"] in _BLIND for each in rest):
                return False
            # whoever comes later is given one word at a time; digits are told apart one character at a time
            return _cuts_before_spaces(first) or (first["type"] == "Digits" and any(map(_cuts_before_spaces, rest[:1])))
        case _:
            return False


def _merges_within_cuts(tokenizer: dict[str, Any]) -> bool:
    """Whether the model gets whole texts with spaces written as marks, and can merge nothing across a cut."""
    model = tokenizer.get("model") or {}
    return (
        tokenizer.get("normalizer") == {"type": "Replace", "pattern": {"String": " "}, "content": _MARK}
        # by spaces, of which none are left
        and tokenizer.get("pre_tokenizer") in (None, _SPLIT_BY_SPACES)
        and model.get("type") == "BPE"
        and _MARK in model["vocab"]
        # a character that is in no way spelled would be left out, and its neighbours merged
        and _spells_everything(model)
        # parts of a word are marked where they stand in it, or whole words are looked up before any merge
        and not any(model.get(key) for key in ("continuing_subword_prefix", "end_of_word_suffix", "ignore_merges"))
        and not any(_reaches_over_a_cut(token) for token in model["vocab"])
    )


def _spells_everything(model: dict[str, Any]) -> bool:
    spells_bytes = model.get("byte_fallback") and all(f"<0x{byte:02X}>" in model["vocab"] for byte in range(256))
    return bool(spells_bytes) or model.get("unk_token") in model["vocab"]


def _reaches_over_a_cut(token: str) -> bool:
    return any(_SPACE < ord(a) < _DELETE and b in (" ", _MARK) for a, b in pairwise(token))


def _is_local(token: dict[str, Any]) -> bool:
    """Whether an added token is found in a text exactly where it is found in the text's pieces."""
    reaches = any(token.get(key) for key in ("lstrip", "rstrip", "single_word"))
    return not (reaches or _reaches_over_a_cut(token["content"]))


class Pieces:
    """Texts, cut.

    Attributes:
        unique: every different piece once.
    """

    def __init__(self, texts: pa.StringArray) -> None:
        _, offsets_buffer, data = texts.buffers()
        offsets = np.frombuffer(offsets_buffer, dtype=np.int32)[texts.offset : texts.offset + len(texts) + 1]
        first, end = int(offsets[0]), int(offsets[-1])
        # a byte before the first text is looked at in no case: the first one is a beginning
        content = np.frombuffer(data, dtype=np.uint8)[first:end] if end > first else np.zeros(0, dtype=np.uint8)
        is_cut = np.zeros(len(content), dtype=np.bool_)
        is_cut[1:] = (content[1:] == _SPACE) & (content[:-1] > _SPACE) & (content[:-1] < _DELETE)
        begins = offsets[:-1][offsets[:-1] < offsets[1:]] - first
        is_cut[begins] = True
        cuts = np.flatnonzero(is_cut)
        piece_offsets = np.append(cuts + first, end).astype(np.int32)
        pieces = pa.StringArray.from_buffers(len(cuts), pa.py_buffer(piece_offsets), data) if len(cuts) else _NONE
        encoded = pieces.dictionary_encode()
        self.unique: list[str] = encoded.dictionary.to_pylist()
        self._index = encoded.indices.to_numpy()
        self._first_piece = np.searchsorted(cuts, offsets - first)

    def sums(self, counts: Ints) -> Ints:
        """Sums over the pieces of each text.

        Args:
            counts: one for each of `unique`.
        """
        running = np.concatenate([[0], np.cumsum(counts[self._index])])
        return np.diff(running[self._first_piece]).astype(np.int64)


_NONE = pa.array([], type=pa.string())
