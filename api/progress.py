"""How far a job is, from rollups: account, usage by minute. Cost follows minutes and tasks, never samples.

Pages, the REST resource and the event stream all take their numbers from here, so that they cannot disagree.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from service import wording
from service.currency import Currency, in_currency, stated, stated_amount
from service.devices import DeviceTime
from service.jobs import DRAWING_STAGES, Job
from service.ledger import Account
from service.store import Store
from service.store.reads import UsageRow
from service.work import TaskKind

RATE_WINDOW = timedelta(minutes=3)
"""Long enough to hold several parts of a slow model, short enough to follow a change."""
_COMMITTED = ("useful", "truncated")
_WITH_SAMPLES = (*DRAWING_STAGES, TaskKind.import_.value)
"""Stages that bring samples; those that were imported cost nothing here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A job in numbers. Amounts of the account are as people state its currency: FLOPs, tokens, samples, USD.

    Args:
        unit: of these amounts, for people: of device time it says which devices once some have worked.
        spent: all of it, beyond the limit too.
        overshoot: of `spent`, what is beyond the limit; 0 but for device time.
        usd: price of all tokens that were drawn, wasted ones included; None where a model has no price [USD].
        wasted_flops: FLOPs by reason: truncated, lost, dropped.
        device_time: by stage, scoring included, useful or not.
        tokens_per_s: completion tokens a second lately, stalls included; over the whole job once it ended.
        eta_s: seconds until the budget is used up; None when nothing is drawn.
    """

    currency: Currency
    unit: str
    limit: float
    spent: float
    reserved: float
    overshoot: float
    samples: int
    errors: int
    truncated: int
    parts: int
    parts_scored: int
    prompt_tokens: int
    completion_tokens: int
    useful_flops: float
    wasted_flops: dict[str, float]
    flops_paper: float
    usd: float | None
    device_time: dict[str, DeviceTime]
    tokens_per_s: float | None
    eta_s: float | None

    @property
    def total_time(self) -> DeviceTime:
        """Device time of all stages."""
        return sum(self.device_time.values(), DeviceTime())


def job_progress(store: Store, job: Job, now: datetime) -> Progress:
    """Everything the ledger and the rollups say of a job."""
    return jobs_progress(store, [job], now)[job.id]


def jobs_progress(store: Store, jobs: Sequence[Job], now: datetime) -> dict[str, Progress]:
    """The same of many jobs by id, in four queries whatever their number and age."""
    job_ids = [job.id for job in jobs]
    with store.reads.at_one_instant() as reads:
        accounts = reads.accounts(job_ids)
        num_parts = reads.count_parts_of(job_ids)
        usage = _by_job(reads.usage(job_ids=job_ids))
        lately = _by_job(reads.usage(job_ids=job_ids, by_minute=True, since=_first_minute(now)))
    return {
        job.id: progress_of(
            job,
            accounts[job.id],
            usage.get(job.id, []),
            now,
            lately=lately.get(job.id, []),
            num_parts=num_parts.get((job.id, TaskKind.generate), 0),
            num_scored=num_parts.get((job.id, TaskKind.score), 0),
        )
        for job in jobs
    }


def _by_job(rows: Iterable[UsageRow]) -> dict[str, list[UsageRow]]:
    found: dict[str, list[UsageRow]] = {}
    for row in rows:
        found.setdefault(row.job_id, []).append(row)
    return found


def _first_minute(now: datetime) -> datetime:
    """Where the window of the rates begins."""
    return (now - RATE_WINDOW).replace(second=0, microsecond=0)


def progress_of(
    job: Job,
    account: Account,
    usage: Sequence[UsageRow],
    now: datetime,
    *,
    lately: Sequence[UsageRow],
    num_parts: int,
    num_scored: int,
) -> Progress:
    """The same from values: no store, no clock.

    Args:
        usage: all of the job's, by minute or summed.
        lately: the minutes of `RATE_WINDOW`, where rates come from while the job runs.
    """
    drawn = [row for row in usage if row.stage in DRAWING_STAGES]
    committed = [row for row in usage if row.stage in _WITH_SAMPLES and row.outcome in _COMMITTED]
    limit = stated_amount(account.currency, account.limit or 0)
    spent = stated_amount(account.currency, account.used)
    recent = [row for row in lately if row.stage in DRAWING_STAGES]
    tokens_per_s, spent_per_s = _rates(job, account.currency, drawn, recent, now)
    eta_s = max(0.0, limit - spent) / spent_per_s if spent_per_s and not job.phase.is_terminal else None
    wasted: dict[str, float] = {}
    for row in drawn:
        if row.outcome != "useful":
            wasted[row.outcome] = wasted.get(row.outcome, 0.0) + row.flops
    return Progress(
        currency=account.currency,
        unit=unit_of(account.currency, drawn),
        limit=limit,
        spent=spent,
        reserved=stated_amount(account.currency, account.reserved),
        overshoot=stated_amount(account.currency, account.exceeded),
        samples=sum(row.samples for row in committed),
        errors=sum(row.errors for row in committed),
        truncated=sum(row.truncated for row in committed),
        parts=num_parts,
        parts_scored=num_scored,
        prompt_tokens=sum(row.prompt_tokens for row in committed),
        completion_tokens=sum(row.completion_tokens for row in committed),
        useful_flops=sum(row.flops for row in drawn if row.outcome == "useful"),
        wasted_flops=wasted,
        flops_paper=sum(row.flops_paper for row in drawn),
        usd=None if any(math.isnan(row.nano_usd) for row in drawn) else amount_of(Currency.usd, drawn),
        device_time=time_by_stage(usage),
        tokens_per_s=tokens_per_s,
        eta_s=eta_s,
    )


def unit_of(currency: Currency, drawn: Iterable[UsageRow]) -> str:
    """What amounts of a currency are called; of device time, by the devices that have drawn so far."""
    if not currency.is_soft:
        return wording.UNIT_WORDS[currency]
    total = sum((DeviceTime(gpu_s=row.gpu_s, cpu_s=row.cpu_s) for row in drawn), DeviceTime())
    if total.gpu_s > 0:
        return "GPU-hours"
    return "CPU-hours" if total.cpu_s > 0 else wording.UNIT_WORDS[currency]


def time_by_stage(usage: Iterable[UsageRow]) -> dict[str, DeviceTime]:
    """Device time of each stage that took some."""
    found: dict[str, DeviceTime] = {}
    for row in usage:
        if row.gpu_s or row.cpu_s:
            found[row.stage] = found.get(row.stage, DeviceTime()) + DeviceTime(gpu_s=row.gpu_s, cpu_s=row.cpu_s)
    return found


def amount_of(currency: Currency, rows: Iterable[UsageRow]) -> float:
    """What usage amounts to, as it is stated in a currency."""
    return stated(currency, sum((in_currency(currency, row) for row in rows), 0.0))


def _rates(
    job: Job, currency: Currency, drawn: Sequence[UsageRow], recent: Sequence[UsageRow], now: datetime
) -> tuple[float | None, float | None]:
    """Completion tokens and budget a second: of the last minutes, or of the whole job when it has ended."""
    if job.ended_at is not None:
        seconds, rows = (job.ended_at - job.created_at).total_seconds(), list(drawn)
    else:
        first_minute = _first_minute(now)
        seconds = (now - max(job.created_at, first_minute)).total_seconds()
        rows = [row for row in recent if row.bucket is not None and row.bucket >= first_minute]
    if not rows or seconds <= 0:
        return None, None
    # what was lost is an estimate, and a budget in samples does not pay for it
    kept = [row for row in rows if row.outcome in _COMMITTED]
    spent = kept if currency is Currency.samples else rows
    return sum(row.completion_tokens for row in kept) / seconds, amount_of(currency, spent) / seconds
