"""How numbers and states are written, once for terminal, pages and report.

Owns no meaning, only form: units stay visible, intervals stand in brackets, a share below one has no leading zero, and
"could not tell" is a word, never 0. Imports only the enums whose members it describes.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

UNKNOWN = "unknown"
_LARGEST_PLAIN_FLOPS = 1e5
_LEAST_CENTS_USD = 100.0
_NANO_DIGITS = 9


class Tone(StrEnum):
    """What a state asks of its reader. A tone is never shown without its word."""

    active = "active"
    waiting = "waiting"
    good = "good"
    warning = "warning"
    bad = "bad"
    quiet = "quiet"


@dataclass(frozen=True, slots=True, kw_only=True)
class StateWord:
    """A state as people read it."""

    word: str
    tone: Tone
    sentence: str


def _state(word: str, tone: Tone, sentence: str) -> StateWord:
    return StateWord(word=word, tone=tone, sentence=sentence)


JOB_WORDS: dict[str, StateWord] = {
    "queued": _state("queued", Tone.waiting, "Accepted; nothing has been started for it."),
    "preparing": _state("preparing", Tone.active, "Prompts are rendered and counted; no budget is spent yet."),
    "running": _state("running", Tone.active, "Samples are drawn and scored."),
    "pausing": _state("pausing", Tone.waiting, "Samples in the engine are finished and kept; no new ones start."),
    "paused": _state("paused", Tone.waiting, "Nothing runs. Resuming repeats no sample."),
    "cancelling": _state("cancelling", Tone.waiting, "Running samples are dropped; finished ones are kept."),
    "succeeded": _state("succeeded", Tone.good, "Budget or plan used up; every sample is a row."),
    "finished_with_errors": _state("finished with errors", Tone.warning, "Ended; some rows carry an error."),
    "failed": _state("failed", Tone.bad, "Ended by an error that retries could not pass."),
    "cancelled": _state("cancelled", Tone.quiet, "Ended on request; finished samples are kept."),
}

ARTIFACT_WORDS: dict[str, StateWord] = {
    "queued": _state("queued", Tone.waiting, "Accepted; nothing has been started for it."),
    "running": _state("running", Tone.active, "Its task waits for a host, or works."),
    "pausing": _state("pausing", Tone.waiting, "What is under way is brought to an end and kept."),
    "paused": _state("paused", Tone.waiting, "Nothing runs. A finetune goes on from its last checkpoint."),
    "cancelling": _state("cancelling", Tone.waiting, "Its task is being stopped; committed checkpoints stay."),
    "succeeded": _state("succeeded", Tone.good, "Done; its files are committed."),
    "finished_with_errors": _state("finished with errors", Tone.warning, "Ended; some of it carries an error."),
    "failed": _state("failed", Tone.bad, "Ended by an error; committed checkpoints stay."),
    "cancelled": _state("cancelled", Tone.quiet, "Ended on request; committed checkpoints stay."),
}
"""Phases of selections and finetunes."""

STAGE_WORDS: dict[str, str] = {
    "prepare": "prompts rendered and counted",
    "generate": "samples drawn to be selected from",
    "score": "samples judged",
    "select": "training sets made of samples",
    "finetune": "students trained",
    "evaluate": "samples drawn to measure a model",
    "import": "samples read from files",
    "judge": "samples drawn to judge others",
}
"""What each stage of the ledger is, for people."""

TASK_WORDS: dict[str, StateWord] = {
    "pending": _state("pending", Tone.waiting, "Waits for a host or for budget."),
    "submitted": _state("submitted", Tone.waiting, "Sent to a host that has not confirmed it."),
    "running": _state("running", Tone.active, "A host works on it."),
    "succeeded": _state("succeeded", Tone.good, "Its files are committed."),
    "failed": _state("failed", Tone.bad, "Our code or the model raised, and retries are used up."),
    "cancelled": _state("cancelled", Tone.quiet, "Stopped on request."),
    "lost": _state("lost", Tone.warning, "Its host is gone; another attempt follows."),
}

HOST_WORDS: dict[str, StateWord] = {
    "starting": _state("starting", Tone.waiting, "Its process is being started."),
    "loading": _state("loading", Tone.waiting, "The engine loads weights."),
    "ready": _state("ready", Tone.good, "Takes work."),
    "draining": _state("draining", Tone.waiting, "Finishes what it has and takes no more."),
    "unreachable": _state(
        "unreachable", Tone.warning, "Does not answer; its reservations are kept until it is confirmed dead."
    ),
    "failed": _state("failed", Tone.bad, "Its engine could not start or died."),
    "dead": _state("dead", Tone.quiet, "Its process is gone."),
}

WASTE_WORDS: dict[str, str] = {
    "truncated": "samples cut at max_tokens",
    "lost": "samples lost with their host",
    "dropped": "samples given up: job cancelled or failed, or a file that could not be written",
    "errors": "samples that ended in an error",
}

UNIT_WORDS: dict[str, str] = {
    "flops": "FLOPs",
    "flops_paper": "FLOPs (paper)",
    "tokens": "tokens",
    "samples": "samples",
    "usd": "USD",
    "gpu_hours": "device-hours",
}
"""What the amounts of a budget's currency are amounts of; of device time, before anybody knows which devices."""


def state_word(words: dict[str, StateWord], state: str) -> StateWord:
    """The word for `state` (case does not matter).

    Raises:
        KeyError: for a state without a word, naming it: a new state needs its sentence here.
    """
    return words[state.lower()]


def flops(value: float | None) -> str:
    """FLOPs with three figures: `1.31e12`; small counts in full."""
    if value is None or math.isnan(value):
        return UNKNOWN
    if abs(value) < _LARGEST_PLAIN_FLOPS:
        return f"{value:,.0f}"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def amount(value: float, currency: str) -> str:
    """An amount of a budget's currency with its unit: `1.312e9 FLOPs`, `1,024 tokens`, `0.0123 USD`.

    Four figures, so that what a sample may cost and what is left differ where they do.
    """
    if math.isnan(value):
        return UNKNOWN
    if currency == "usd":
        return usd(value)
    if currency == "gpu_hours":
        return f"{quantity(value, currency)} {UNIT_WORDS[currency]}"
    unit = UNIT_WORDS.get(currency, currency)
    if currency not in ("flops", "flops_paper") or abs(value) < _LARGEST_PLAIN_FLOPS:
        return f"{value:,.0f} {unit if value != 1 else unit.removesuffix('s')}"
    mantissa, exponent = f"{value:.3e}".split("e")
    return f"{mantissa}e{int(exponent)} {unit}"


def flops_of_all(values: Iterable[float | None]) -> str:
    """The sum of what is known, and that some is not: `1.31e12 and unknown`."""
    found = list(values)
    known = [value for value in found if value is not None and not math.isnan(value)]
    if len(known) == len(found):
        return flops(sum(known))
    return f"{flops(sum(known))} and {UNKNOWN}" if any(known) else UNKNOWN


def quantity(value: float | None, currency: str) -> str:
    """An amount without its unit, where that stands beside it: `1.31e12`, `0.01234`.

    Args:
        currency: or its unit.
    """
    if currency.lower().endswith(("hours", "_hours")) and value is not None:
        return hours(3600 * value)
    return usd(value).removesuffix(" USD") if currency.lower() == "usd" else flops(value)


def usd(value: float | None) -> str:
    """USD to the cent from a hundred on, with four figures below, down to the nano: `1,234.50 USD`, `0.01234 USD`."""
    if value is None or math.isnan(value):
        return UNKNOWN
    if value == 0 or abs(value) >= _LEAST_CENTS_USD:
        return f"{value:,.2f} USD"
    digits = min(_NANO_DIGITS, max(2, 3 - math.floor(math.log10(abs(value)))))
    whole, _, cents = f"{value:.{digits}f}".partition(".")
    return f"{whole}.{cents[:2]}{cents[2:].rstrip('0')} USD"


def count(value: float | None) -> str:
    """A count with thousands separated: `12,071`."""
    return UNKNOWN if value is None or math.isnan(value) else f"{value:,.0f}"


def share(value: float | None, *, digits: int = 3) -> str:
    """A share between 0 and 1 without its leading zero: `.884`."""
    if value is None or math.isnan(value):
        return UNKNOWN
    return _bare(f"{value:.{digits}f}")


def percent(value: float | None, *, digits: int = 1) -> str:
    """A share as percent: `3.8 %`."""
    return UNKNOWN if value is None or math.isnan(value) else f"{100 * value:.{digits}f} %"


def signed_share(value: float | None, *, digits: int = 3) -> str:
    """A difference of shares with its sign: `+.025`."""
    if value is None or math.isnan(value):
        return UNKNOWN
    return _bare(f"{value:+.{digits}f}")


def points(value: float | None) -> str:
    """A difference of percentages: `+1.7 points`."""
    return UNKNOWN if value is None or math.isnan(value) else f"{100 * value:+.1f} points"


def signed_percent(value: float | None) -> str:
    """A relative difference: `+57 %`."""
    return UNKNOWN if value is None or math.isnan(value) else f"{100 * value:+.0f} %"


def duration(seconds: float | None) -> str:
    """A time span: `41 s`, `2 min 05 s`, `3 h 12 min`, `4 d 6 h`."""
    if seconds is None or math.isnan(seconds):
        return UNKNOWN
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def hours(seconds: float) -> str:
    """A time in hours with three figures: `0.0167`, `12.3`, `1,204.0`."""
    value = seconds / 3600
    return f"{value:,.1f}" if value >= 1000 else f"{value:.3g}"


def device_hours(gpu_s: float, cpu_s: float) -> str:
    """Time on devices with its unit, which says what they are: `1.25 GPU-hours`, `0.0167 CPU-hours`, or both.

    Args:
        gpu_s: GPU-seconds.
        cpu_s: core-seconds of what held no GPU.
    """
    parts = [f"{hours(spent)} {unit}-hours" for spent, unit in ((gpu_s, "GPU"), (cpu_s, "CPU")) if spent > 0]
    return " and ".join(parts) or "no device time"


def ago(moment: datetime | None, now: datetime) -> str:
    """How long before `now`: `41 s ago`."""
    if moment is None:
        return "never"
    passed = now - moment
    return "just now" if passed < timedelta(seconds=2) else f"{duration(passed.total_seconds())} ago"


def timestamp(moment: datetime | None) -> str:
    """A UTC moment to the second: `2026-03-01 14:05:09 UTC`."""
    return UNKNOWN if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def plural(number: int, noun: str, nouns: str | None = None) -> str:
    """`1 job`, `3 jobs`, `no jobs`."""
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {nouns or noun + 's'}" if number else f"no {nouns or noun + 's'}"


def _bare(text: str) -> str:
    return text.replace("0.", ".", 1) if text.lstrip("+-").startswith("0.") else text
