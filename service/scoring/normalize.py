"""Keys that say when two solutions are the same: one function per de-duplication rule of the diversity metric.

Invariant: a key depends on the text alone (no seed, no process state), so keys made on different machines compare.
Keys are unsigned 64-bit: among a million solutions of one problem two differing ones meet with probability 3e-8.
"""

import hashlib
import re
import unicodedata

from service.scoring.calculations import calculations

_NOT_WORD = re.compile(r"[^\w+\-*/=<>%.^]+")
_LOOSE_POINT = re.compile(r"(?<!\d)\.|\.(?!\d)")


def exact_key(text: str) -> int:
    """Key of the `exact` rule: equal only for equal text, character by character."""
    return _key("exact", text)


def normalized_key(text: str) -> int:
    """Key of the `normalized` rule: case, space and punctuation do not count; signs of calculation and digits do.

    Unicode is folded by NFKC first, so that a full-width digit is a digit and a no-break space a space.
    """
    return _key("normalized", normalized_text(text))


def normalized_text(text: str) -> str:
    """The text that `normalized_key` hashes: words, numbers and operators, single spaces between them."""
    folded = unicodedata.normalize("NFKC", text).casefold().replace("\N{MINUS SIGN}", "-")
    words = _NOT_WORD.sub(" ", _LOOSE_POINT.sub(" ", folded))
    return " ".join(words.split())


def equations_key(text: str) -> int:
    """Key of the `equations` rule: equal for the same sequence of calculations, whatever is said between them.

    A text without any calculation falls back to the `normalized` rule (in a key space of its own), for otherwise all
    wordy solutions would count as one.
    """
    chain = [calculation.text for calculation in calculations(text)]
    if not chain:
        return _key("wordy", normalized_text(text))
    return _key("equations", "\n".join(chain))


def _key(rule: str, text: str) -> int:
    # surrogatepass: a lone surrogate can come out of a JSON file and must not stop scoring
    data = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8, person=rule.encode()).digest(), "little")
