"""Numbers read the same everywhere, and every state has its word."""

from datetime import UTC, datetime, timedelta

import pytest

from service import wording
from service.cluster import HostState
from service.jobs import Phase
from service.tasks import TaskState

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.31e12, "1.31e12"),
        (0.0, "0"),
        (99_999.0, "99,999"),
        (1e5, "1.00e5"),
        (None, "unknown"),
        (float("nan"), "unknown"),
    ],
)
def test_flops_are_written_with_three_figures(value: float | None, text: str) -> None:
    assert wording.flops(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.884, ".884"), (1.0, "1.000"), (0.0, ".000"), (-0.008, "-.008"), (None, "unknown")]
)
def test_share_has_no_leading_zero(value: float | None, text: str) -> None:
    assert wording.share(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.025, "+.025"), (-0.008, "-.008"), (1.2, "+1.200")])
def test_signed_share_shows_its_sign(value: float, text: str) -> None:
    assert wording.signed_share(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (41, "41 s"),
        (59.6, "1 min 00 s"),
        (125, "2 min 05 s"),
        (11_520, "3 h 12 min"),
        (367_200, "4 d 6 h"),
        (-3, "0 s"),
        (None, "unknown"),
    ],
)
def test_duration_uses_two_units_at_most(seconds: float | None, text: str) -> None:
    assert wording.duration(seconds) == text


@pytest.mark.parametrize(
    ("gpu_s", "cpu_s", "text"),
    [
        (4500.0, 0.0, "1.25 GPU-hours"),
        (0.0, 60.0, "0.0167 CPU-hours"),
        (7200.0, 36.0, "2 GPU-hours and 0.01 CPU-hours"),
        (4_334_400.0, 0.0, "1,204.0 GPU-hours"),
        (0.0, 0.0, "no device time"),
    ],
)
def test_device_hours_say_what_the_devices_are(gpu_s: float, cpu_s: float, text: str) -> None:
    assert wording.device_hours(gpu_s, cpu_s) == text


def test_ago_counts_from_the_given_now() -> None:
    assert wording.ago(NOON - timedelta(seconds=41), NOON) == "41 s ago"
    assert wording.ago(NOON, NOON) == "just now"
    assert wording.ago(None, NOON) == "never"


@pytest.mark.parametrize(
    ("states", "words"),
    [(Phase, wording.JOB_WORDS), (TaskState, wording.TASK_WORDS), (HostState, wording.HOST_WORDS)],
    ids=["jobs", "tasks", "hosts"],
)
def test_every_state_has_its_word_and_sentence(states: type, words: dict[str, wording.StateWord]) -> None:
    assert {str(state.value).lower() for state in states} == set(words)  # type: ignore[attr-defined]
    assert all(word.sentence.endswith(".") for word in words.values())


@pytest.mark.parametrize(
    ("value", "currency", "text"),
    [
        (1.31234e9, "flops", "1.312e9 FLOPs"),
        (1.31289e9, "flops_paper", "1.313e9 FLOPs (paper)"),
        (40.0, "flops", "40 FLOPs"),
        (1024.0, "tokens", "1,024 tokens"),
        (1.0, "samples", "1 sample"),
    ],
)
def test_amount_has_its_unit_and_four_figures(value: float, currency: str, text: str) -> None:
    assert wording.amount(value, currency) == text
