"""One job: how far it is, what it cost, what it gave."""

from dataclasses import dataclass
from datetime import datetime

from api.dashboard.pages.frame import Link, Shell
from api.dashboard.pages.overview import JobLine
from service import wording
from service.figures import Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricView:
    """One measured quantity: the value as text, its interval, what it means."""

    key: str
    label: str
    value: str
    interval: str
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WasteLine:
    """FLOPs of one kind of waste. `reason` is a key of `wording.WASTE_WORDS`."""

    reason: str
    flops: float
    share: float
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLine:
    """One task. `state` is a key of `wording.TASK_WORDS`.

    Args:
        samples_done: finished, of `samples_planned`; both 0 for tasks that draw none.
        host: where its current attempt runs; "" before that.
    """

    id: str
    kind: str
    model: str
    state: str
    attempt: int
    samples_done: int
    samples_planned: int
    host: str
    running_s: float | None
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventLine:
    """One line of a job's history. `tone` is a `wording.Tone`."""

    seq: int
    at: datetime
    tone: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmLine:
    """One arm of several.

    Args:
        adapted: the model that its model is an adapter on; None where that came whole.
        share: of what all arms have spent, in [0, 1]; 0 before anything is.
        wasted: share of its FLOPs that was waste, in [0, 1]; None where they are unknown, or there are none.
        metrics: value and interval as text, as many as `JobPage.arm_columns`.
    """

    name: str
    model: str
    adapted: str | None
    temperature: float
    samples: int
    flops: float | None
    share: float
    wasted: float | None
    metrics: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPage:
    """How far is this job, what has it cost, what did it give?

    Args:
        job: as in the list.
        headline: see `job_headline`.
        actions: verbs that apply now, of "pause", "resume", "cancel".
        num_problems: problems of its set.
        took_s: seconds from submission to end; None before that.
        flops: of all samples, exact accounting, and what of them was wasted, in words.
        device_time: what devices worked for it, and what of that was for each stage, in words.
        scored: how far scoring is, in words.
        arms: each by itself, where there are several.
        arm_columns: names of the arms' metrics.
        arms_note: how to read them.
        document: the resolved job document as YAML.
        versions: packages and their versions.
        source: what an import's samples come from and once cost, label and text; empty where they were drawn here.
        comparable: id and name of other jobs over the same problems, newest first.
        selections: training sets made of it.
        poll_s: how often the page looks again [s]; None once nothing will change.
    """

    shell: Shell
    job: JobLine
    headline: str
    error: str | None
    actions: tuple[str, ...]
    num_problems: int
    took_s: float | None
    usd: float | None
    truncated_share: float | None
    flops: tuple[str, str]
    device_time: tuple[str, str]
    scored: str
    metrics: tuple[MetricView, ...]
    arms: tuple[ArmLine, ...]
    arm_columns: tuple[str, ...]
    arms_note: str
    figures: tuple[Figure, ...]
    waste: tuple[WasteLine, ...]
    tasks: tuple[TaskLine, ...]
    num_tasks: int
    events: tuple[EventLine, ...]
    document: str
    versions: tuple[tuple[str, str], ...]
    source: tuple[tuple[str, str], ...]
    comparable: tuple[tuple[str, str], ...]
    selections: tuple[Link, ...]
    poll_s: float | None


def job_headline(job: JobLine) -> str:
    """One line such as `Running: 62 % of 1.31e12 FLOPs spent, 7,480 samples, about 2 min 05 s left.`."""
    word = wording.state_word(wording.JOB_WORDS, job.phase).word.capitalize()
    spent = wording.percent(job.budget.spent_share, digits=0)
    parts = [
        f"{spent} of {wording.quantity(job.budget.limit, job.budget.unit)} {job.budget.unit} spent"
        if job.budget.limit
        else "imported",
        wording.plural(job.samples, "sample"),
    ]
    if job.eta_s is not None:
        parts.append(f"about {wording.duration(job.eta_s)} left")
    return f"{word}: {', '.join(parts)}."
