"""Which training questions occur in a held-out set: the same text, or many words in a row in common.

Owns what counts as contaminated. Texts are compared normalised (case, space and punctuation do not count), and word
n-grams within one question each. Invariant: what is shared by two questions is found whatever stands around it; a
question shorter than n words is compared as a whole alone. Works in batches of questions, by column. Needs numpy.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from service.errors import InvalidInput
from service.scoring.normalize import normalized_text

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]

MIN_NGRAM = 5
"""Fewer words in a row are shared by chance."""
MAX_EXAMPLES = 5
_BATCH = 20_000  # questions: at 50 words each, a million hashes at once
_BASE = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutSet:
    """The questions of one problem set that training must not see."""

    name: str
    questions: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """One training question and what it shares with a held-out one.

    Args:
        rule: the whole text, or an n-gram.
        shared: what both have, normalised.
    """

    question: str
    held_out_set: str
    held_out_question: str
    rule: Literal["text", "ngram"]
    shared: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Contamination:
    """What was found.

    Args:
        compared: training questions.
        held_out: held-out questions.
        by_text: questions equal to one held out.
        by_ngram: other questions that share an n-gram with one.
        examples: at most MAX_EXAMPLES, whole texts first.
    """

    compared: int
    held_out: int
    by_text: int
    by_ngram: int
    examples: tuple[Overlap, ...]


@dataclass(frozen=True, slots=True)
class _Grams:
    """Hashes of all n-grams of some texts: of which text, and at which of its words."""

    key: Keys
    text: Ints
    word: Ints


def find_contaminated(
    questions: Sequence[str], held_out: Sequence[HeldOutSet], *, ngram: int | None
) -> tuple[Bools, Contamination]:
    """Which questions are contaminated [len(questions)], and counts with a few examples.

    Args:
        ngram: words in a row, >= MIN_NGRAM; None compares whole texts only.

    Raises:
        InvalidInput: `ngram` is too small.
    """
    if ngram is not None and ngram < MIN_NGRAM:
        raise InvalidInput(f"ngram: got {ngram}, allowed: {MIN_NGRAM} and more, or nothing to compare whole texts only")
    held = [(item.name, question) for item in held_out for question in item.questions]
    if not held:
        nothing = Contamination(compared=len(questions), held_out=0, by_text=0, by_ngram=0, examples=())
        return np.zeros(len(questions), dtype=bool), nothing
    held_texts = [_text(question) for _, question in held]
    texts = [_text(question) for question in questions]
    index_by_text = {text: index for index, text in reversed(list(enumerate(held_texts)))}
    partner = np.array([index_by_text.get(text, -1) for text in texts], dtype=np.int64)
    by_text = partner >= 0
    shared = [texts[row] if equal else "" for row, equal in enumerate(by_text.tolist())]
    if ngram is not None:
        for row, index, words in _shared_ngrams(texts, held_texts, ngram, skip=by_text):
            partner[row], shared[row] = index, words
    is_contaminated = partner >= 0
    shown: list[int] = np.concatenate([np.flatnonzero(by_text), np.flatnonzero(is_contaminated & ~by_text)]).tolist()
    examples = tuple(
        Overlap(
            question=questions[row],
            held_out_set=held[int(partner[row])][0],
            held_out_question=held[int(partner[row])][1],
            rule="text" if by_text[row] else "ngram",
            shared=shared[row],
        )
        for row in shown[:MAX_EXAMPLES]
    )
    return is_contaminated, Contamination(
        compared=len(questions),
        held_out=len(held),
        by_text=int(by_text.sum()),
        by_ngram=int((is_contaminated & ~by_text).sum()),
        examples=examples,
    )


def _text(question: str) -> str:
    """Normalised; a question of signs alone, of which nothing would be left, stays as it is."""
    return normalized_text(question) or question.strip()


def _shared_ngrams(texts: list[str], held_texts: list[str], n: int, *, skip: Bools) -> Iterator[tuple[int, int, str]]:
    """Text, held-out text and the words they share, for the first n-gram that each text shares with any."""
    grams = list(_grams(held_texts, n))
    held_key = np.concatenate([each.key for each in grams])
    held_text = np.concatenate([each.text for each in grams])
    order = np.argsort(held_key, kind="stable")
    held_key, held_text = held_key[order], held_text[order]
    if not len(held_key):
        return
    for each in _grams(texts, n):
        at = np.minimum(np.searchsorted(held_key, each.key), len(held_key) - 1)
        hits = np.flatnonzero((held_key[at] == each.key) & ~skip[each.text])
        rows, first = np.unique(each.text[hits], return_index=True)
        found: list[int] = hits[first].tolist()
        texts_found: list[int] = rows.tolist()
        for row, hit in zip(texts_found, found, strict=True):
            word = int(each.word[hit])
            words = texts[row].split(" ")[word : word + n]
            yield row, int(held_text[at[hit]]), " ".join(words)


def _grams(texts: list[str], n: int) -> Iterator[_Grams]:
    for start in range(0, len(texts), _BATCH):
        words = pc.split_pattern(pa.array(texts[start : start + _BATCH], type=pa.string()), " ")
        encoded = words.flatten().dictionary_encode()
        hashes = np.array([_word_hash(word) for word in encoded.dictionary.to_pylist()], dtype=np.uint64)
        word_hash = hashes[encoded.indices.to_numpy()]
        lengths = pc.list_value_length(words).to_numpy().astype(np.int64)
        text = np.repeat(np.arange(len(lengths)), lengths)
        word = np.arange(len(text)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        count = max(0, len(text) - n + 1)
        key = np.zeros(count, dtype=np.uint64)
        for offset in range(n):
            key = key * _BASE + word_hash[offset : offset + count]
        is_inside = word[:count] + n <= lengths[text[:count]]
        yield _Grams(key[is_inside], text[:count][is_inside] + start, word[:count][is_inside])


def _word_hash(word: str) -> int:
    return int.from_bytes(blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
