"""Progress from account and rollups: rates, time left, waste."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, event

from api.progress import Progress, jobs_progress, progress_of
from service.currency import Budget, Currency
from service.jobs import Desired, Job, JobSpec, Phase
from service.ledger import Account
from service.store.reads import UsageRow

NOW = datetime(2026, 3, 1, 12, 30, 30, tzinfo=UTC)


def _job(*, currency: Currency = Currency.flops, age_s: float = 3600, ended_after_s: float | None = None) -> Job:
    created = NOW - timedelta(seconds=age_s)
    budget = Budget(currency=currency, limit=1000)
    return Job(
        id="job-1",
        spec=JobSpec(name="n", problems="p", models=("m",), budget=budget),
        desired=Desired.run,
        created_at=created,
        phase=Phase.running if ended_after_s is None else Phase.succeeded,
        ended_at=None if ended_after_s is None else created + timedelta(seconds=ended_after_s),
    )


def _row(*, minutes_ago: int = 0, outcome: str = "useful", stage: str = "generate", **amounts: float) -> UsageRow:
    values: dict[str, float] = dict.fromkeys(
        (
            "samples",
            "errors",
            "truncated",
            "prompt_tokens",
            "cached_tokens",
            "completion_tokens",
            "flops",
            "flops_paper",
            "nano_usd",
        ),
        0,
    )
    bucket = NOW.replace(second=0) - timedelta(minutes=minutes_ago)
    return UsageRow(
        job_id="job-1",
        model="m",
        stage=stage,
        outcome=outcome,
        bucket=bucket,
        busy_s=1.0,
        **(values | amounts),  # type: ignore[arg-type]
    )


def _progress(job: Job, usage: list[UsageRow], *, spent: int = 0, reserved: int = 0) -> Progress:
    account = Account(id="job-1:x", currency=job.spec.budget.currency, limit=1000, spent=spent, reserved=reserved)
    return progress_of(job, account, usage, NOW, lately=usage, num_parts=2, num_scored=1)


def test_progress_amounts_are_in_natural_units() -> None:
    found = _progress(_job(), [], spent=250, reserved=50)

    assert (found.limit, found.spent, found.reserved) == (1e9, 2.5e8, 5e7)
    assert (found.tokens_per_s, found.eta_s) == (None, None)


def test_progress_rate_is_over_the_last_minutes_stalls_included() -> None:
    usage = [
        _row(minutes_ago=40, completion_tokens=10**6, flops=1e8),
        _row(minutes_ago=2, completion_tokens=2100, flops=2.1e6),
    ]

    found = _progress(_job(), usage, spent=370)

    # from 12:27:00, the minute three minutes ago fell into, to 12:30:30
    assert found.tokens_per_s == pytest.approx(2100 / 210)
    assert found.eta_s == pytest.approx((1e9 - 3.7e8) / (2.1e6 / 210))


def test_progress_rate_of_a_young_job_starts_with_the_job() -> None:
    found = _progress(_job(age_s=10), [_row(completion_tokens=500, flops=1e6)], spent=1)

    assert found.tokens_per_s == pytest.approx(50)


def test_progress_of_a_stalled_job_has_no_time_left() -> None:
    found = _progress(_job(), [_row(minutes_ago=10, completion_tokens=500, flops=1e6)], spent=1)

    assert (found.tokens_per_s, found.eta_s) == (None, None)


def test_progress_of_an_ended_job_has_its_mean_rate_and_nothing_left() -> None:
    usage = [_row(minutes_ago=50, completion_tokens=3000), _row(minutes_ago=40, completion_tokens=3000)]

    found = _progress(_job(ended_after_s=600), usage, spent=900)

    assert found.tokens_per_s == pytest.approx(10)
    assert found.eta_s is None


@pytest.mark.parametrize(
    ("currency", "expected"),
    [
        (Currency.tokens, (1000 - 200) / (30 / 10)),
        (Currency.samples, (1000 - 200) / (3 / 10)),
        (Currency.flops_paper, (1000e6 - 200e6) / (7e6 / 10)),
    ],
)
def test_progress_time_left_is_in_the_currency_of_the_budget(currency: Currency, expected: float) -> None:
    row = _row(samples=4, errors=1, prompt_tokens=10, completion_tokens=20, flops=1e6, flops_paper=7e6)

    assert _progress(_job(currency=currency, age_s=10), [row], spent=200).eta_s == pytest.approx(expected)


def test_progress_counts_committed_samples_and_every_waste() -> None:
    usage = [
        _row(samples=10, errors=1, flops=10.0),
        _row(outcome="truncated", samples=2, truncated=2, flops=3.0),
        _row(outcome="lost", samples=5, flops=4.0),
        _row(stage="score", samples=99, flops=99.0),
    ]

    found = _progress(_job(), usage)

    assert (found.samples, found.errors, found.truncated) == (12, 1, 2)
    assert found.useful_flops == 10.0
    assert found.wasted_flops == {"truncated": 3.0, "lost": 4.0}
    assert (found.parts, found.parts_scored) == (2, 1)


def test_progress_of_many_jobs_is_that_of_each_and_takes_as_many_queries_as_of_one(finished) -> None:
    world, job_id = finished
    job = world.store.jobs.get(job_id)
    statements: list[str] = []

    def count(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    event.listen(Engine, "before_cursor_execute", count)
    one = jobs_progress(world.store, [job], NOW)
    num_of_one = len(statements)
    many = jobs_progress(world.store, [job] * 30, NOW)
    event.remove(Engine, "before_cursor_execute", count)

    assert one == many
    assert one[job_id].samples == 24
    assert one[job_id].parts == one[job_id].parts_scored >= 1
    assert len(statements) == 2 * num_of_one <= 12
