"""How many tokens texts have, by a model's own tokenizer or by a rule of thumb.

Owns counting alone: no token id leaves here, which is what makes it fast enough for millions of texts. The same text
and model give the number that preparing and drawing would have given. Must not import ray, vllm or torch; transformers
is loaded only for a real model.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from service.errors import InvalidInput
from service.jobs import PromptSpec
from service.models import ModelSpec
from workers.prepare import Tokenizer, load_tokenizer
from workers.prompts import Message
from workers.token_pieces import Pieces

CHARACTERS_PER_TOKEN = 4
"""Of English text with common vocabularies; the estimate where no tokenizer is known."""
_MOST_PROMPTS = 200_000
"""Prompts whose counts are remembered, some 25 MiB however long they are: every sample of a problem has the same."""
_MOST_PIECES = 500_000
"""Pieces whose counts are remembered, some 70 MiB of words of six letters; a new batch adds those that it has."""
_LONGEST_KEPT = 64
"""Longest piece that is remembered [characters]: a text without ASCII spaces, as Chinese, is one piece, and no other
text has it."""
_BATCH = 256
"""Texts that are encoded at once: encodings of thousands do not fit the caches, and take 1.7 times as long."""
Ints = npt.NDArray[np.int64]


class TokenCounter(Protocol):
    """Counts tokens."""

    def prompts(self, texts: pa.Array) -> Ints:
        """Tokens of each prompt, a beginning of sequence included where the model's prompts have one."""
        ...

    def completions(self, texts: pa.Array) -> Ints:
        """Tokens of each completion, without the one that ends it."""
        ...

    def apply_chat_template(self, messages: Sequence[Message]) -> str:
        """Messages as one text that ends where the model's answer begins."""
        ...


def counter_of(model: ModelSpec | None, prompt: PromptSpec) -> TokenCounter:
    """Counts with the model's tokenizer; an estimate where there is no model.

    Raises:
        InvalidInput: no tokenizer in the model's directory.
    """
    return EstimatedCounter() if model is None else ModelCounter(load_tokenizer(model, prompt))


class EstimatedCounter:
    """One token for `CHARACTERS_PER_TOKEN` characters, rounded up."""

    def prompts(self, texts: pa.Array) -> Ints:
        """Tokens of each prompt."""
        return self.completions(texts)

    def completions(self, texts: pa.Array) -> Ints:
        """Tokens of each completion."""
        characters: Ints = pc.fill_null(pc.utf8_length(texts), 0).to_numpy().astype(np.int64)
        return -(-characters // CHARACTERS_PER_TOKEN)

    def apply_chat_template(self, messages: Sequence[Message]) -> str:
        """Refused: nobody knows the template."""
        raise InvalidInput(f"a model that is not registered has no chat template, got {len(messages)} messages")


class ModelCounter:
    """A model's own tokenizer. Prompts are counted once each, however often they occur.

    So is each piece of the completions, where their counts add up: texts are long, and their words few.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._known: dict[bytes, int] = {}
        self._has_pieces = tokenizer.counts_add_up()
        self._known_pieces: dict[str, int] = {}

    def prompts(self, texts: pa.Array) -> Ints:
        """Tokens of each prompt."""
        encoded = texts.dictionary_encode()
        unique: list[str] = encoded.dictionary.to_pylist()
        digests = [blake2b(text.encode(), digest_size=16).digest() for text in unique]
        if len(self._known) > _MOST_PROMPTS:
            self._known.clear()
        if new := {digest: text for digest, text in zip(digests, unique, strict=True) if digest not in self._known}:
            counted = map(len, self._tokenizer.encode_batch(list(new.values())))
            self._known |= dict(zip(new, counted, strict=True))
        counts = np.array([self._known[digest] for digest in digests], dtype=np.int64)
        return counts[encoded.indices.to_numpy()]

    def completions(self, texts: pa.Array) -> Ints:
        """Tokens of each completion."""
        if not self._has_pieces:
            return np.array(self._count(texts.to_pylist()), dtype=np.int64)
        pieces, known = Pieces(texts), self._known_pieces
        if len(known) > _MOST_PIECES:
            known.clear()
        new = [piece for piece in pieces.unique if piece not in known]
        counted = dict(zip(new, self._count(new), strict=True))
        known |= {piece: count for piece, count in counted.items() if len(piece) <= _LONGEST_KEPT}
        counts = (counted[piece] if piece in counted else known[piece] for piece in pieces.unique)
        return pieces.sums(np.fromiter(counts, dtype=np.int64, count=len(pieces.unique)))

    def _count(self, texts: Sequence[str]) -> list[int]:
        batches = (texts[start : start + _BATCH] for start in range(0, len(texts), _BATCH))
        return [count for batch in batches for count in self._tokenizer.count_batch(batch)]

    def apply_chat_template(self, messages: Sequence[Message]) -> str:
        """Messages as one text, by the model's own template."""
        return self._tokenizer.apply_chat_template(messages)
