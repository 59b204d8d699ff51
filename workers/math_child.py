r"""The process that asks math-verify: one pair of answers a line in, one ruling a line out.

Run as a file, `python -P math_child.py`, never imported by the service. Invariant: it does one pair at a time and holds
no state that a kill could lose; its memory and processor time are limited by the kernel, so that even an orphan in an
endless computation ends. Whoever asks keeps the clock and kills. Imports nothing of the project.

A line in is `{"reference": ..., "answer": ..., "cpu_s": ...}`; a line out is `{"ruling": ..., "explanation": ...}`.
The first line out is `{"ruling": "ready", ...}`, once everything is imported.
"""

import gc
import json
import logging
import os
import resource
import sys
from functools import lru_cache
from typing import Any

from math_verify import parse, verify
from math_verify.parser import ExprExtractionConfig, LatexExtractionConfig
from sympy import nan, zoo

MAX_FAULT_CHARS = 200
_FAULTS = (
    ValueError,
    TypeError,
    ArithmeticError,
    LookupError,
    AttributeError,
    RuntimeError,
    AssertionError,
    MemoryError,
)
"""What parsers and algebra raise. Anything else ends this process, which costs its pair a judgement and a new start."""
_TARGETS = (LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig())


def main() -> None:
    """Answers lines until there are no more."""
    memory_bytes = int(sys.argv[1])
    # only this module may write where answers are read: a library that prints goes to the error stream
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    logging.disable(logging.CRITICAL)
    _warm_up()
    gc.freeze()  # what is imported stays; collecting it again and again is a part of the time of each pair
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _say(answers, "ready", "")
    for line in sys.stdin:
        asked = json.loads(line)
        _limit_processor_time(asked["cpu_s"])
        _say(answers, *_ruling(asked["reference"], asked["answer"]))


def _say(answers: Any, ruling: str, explanation: str) -> None:
    answers.write(json.dumps({"ruling": ruling, "explanation": explanation}) + "\n")
    answers.flush()


def _limit_processor_time(seconds: int) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + 1 + seconds, hard))


def _warm_up() -> None:
    """Builds what the parser builds on first use, so that no pair pays for it."""
    verify(_parsed(r"\frac{1}{2}"), _parsed("x^2+1"), timeout_seconds=None)


def _ruling(reference: str, answer: str) -> tuple[str, str]:
    """What math-verify says; what it raises is its own fault, not the answer's."""
    try:
        gold, target = _parsed(reference), _parsed(answer)
        if not gold:
            return "unreadable_reference", ""
        if not target or any(value in (nan, zoo) for value in target):
            return "unreadable", ""
        # the order matters to it: the reference first
        same = verify(gold, target, timeout_seconds=None, raise_on_error=True)
    except _FAULTS as error:
        return "error", f"{type(error).__name__}: {error}"[:MAX_FAULT_CHARS]
    return ("same" if same else "different"), ""


@lru_cache(maxsize=1024)  # pairs of a problem share its reference
def _parsed(text: str) -> list[Any]:
    """Values of a bare answer; its own timer is off, for it does not stop what computes in C."""
    no_timer: Any = None
    return parse(
        f"\\boxed{{{text}}}", _TARGETS, fallback_mode="no_fallback", parsing_timeout=no_timer, raise_on_error=True
    )


if __name__ == "__main__":
    main()
