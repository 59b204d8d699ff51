"""What each page shows: one frozen dataclass per page, exactly the values its template uses.

Invariant: a template reads nothing but its page, so a page can be built by hand, tested and looked at without a
store. Amounts are numbers in natural units; templates write them with `service.wording`. Knows no store and no HTTP.
"""

from dataclasses import dataclass
from datetime import datetime

from service import wording
from service.figures import Figure
from service.report import Comparison


@dataclass(frozen=True, slots=True, kw_only=True)
class Shell:
    """What surrounds every page.

    Args:
        active: key of the current entry in the navigation; "" for none.
        now: the moment the page was made (UTC).
        tick_age_s: seconds since the controller last looked; None while it has not started.
        identity: who is signed in, e.g. "local operator".
        can_operate: whether scale and cancel controls are shown.
    """

    active: str
    now: datetime
    version: str
    tick_age_s: float | None
    identity: str
    can_operate: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetView:
    """A hard limit and how much of it is gone, in natural units of its currency.

    Args:
        unit: "FLOPs", "tokens" or "samples".
        accounting: how FLOPs are counted, e.g. "exact"; "" for other units.
    """

    unit: str
    accounting: str
    limit: float
    spent: float
    reserved: float

    @property
    def spent_share(self) -> float:
        """Spent of the limit, 0 to 1."""
        return self.spent / self.limit

    @property
    def reserved_share(self) -> float:
        """Reserved of the limit, 0 to 1."""
        return self.reserved / self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class JobLine:
    """One job in a list.

    Args:
        phase: a key of `wording.JOB_WORDS`.
        attention: why it does not get on, e.g. "waits for a CPU since 45 s"; None when nothing is wrong.
        eta_s: seconds until the budget is used up at the current rate, stalls included; None when not predictable.
    """

    id: str
    name: str
    phase: str
    models: tuple[str, ...]
    problems: str
    budget: BudgetView
    samples: int
    tokens_per_s: float | None
    eta_s: float | None
    created_at: datetime
    attention: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UseLine:
    """FLOPs of one model in one stage, useful and wasted."""

    model: str
    stage: str
    useful_flops: float
    wasted_flops: float

    @property
    def wasted_share(self) -> float:
        """Wasted of all its FLOPs, 0 to 1; 0 when nothing was spent."""
        total = self.useful_flops + self.wasted_flops
        return self.wasted_flops / total if total else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OverviewPage:
    """Is everything getting on?

    Args:
        headline: the answer in one line, see `overview_headline`.
        engines_ready: generator engines that take work, of `engines_total`.
        tokens_per_s: completion tokens a second, all engines together.
    """

    shell: Shell
    headline: str
    engines_ready: int
    engines_total: int
    tokens_per_s: float
    spent_today_flops: float
    wasted_today_share: float
    jobs: tuple[JobLine, ...]
    use: tuple[UseLine, ...]
    figures: tuple[Figure, ...]

    @property
    def largest_use_flops(self) -> float:
        """Most FLOPs in one line of `use`: the length of the longest bar."""
        return max((line.useful_flops + line.wasted_flops for line in self.use), default=0.0)


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
class JobPage:
    """How far is this job, what has it cost, what did it give?

    Args:
        job: as in the list.
        headline: see `job_headline`.
        actions: verbs that apply now, of "pause", "resume", "cancel".
        num_problems: problems of its set.
        document: the resolved job document as YAML.
        versions: packages and their versions.
        comparable: id and name of other jobs over the same problems, newest first.
        poll_s: how often the page looks again [s]; None once nothing will change.
    """

    shell: Shell
    job: JobLine
    headline: str
    error: str | None
    actions: tuple[str, ...]
    num_problems: int
    truncated_share: float | None
    metrics: tuple[MetricView, ...]
    figures: tuple[Figure, ...]
    waste: tuple[WasteLine, ...]
    tasks: tuple[TaskLine, ...]
    num_tasks: int
    events: tuple[EventLine, ...]
    document: str
    versions: tuple[tuple[str, str], ...]
    comparable: tuple[tuple[str, str], ...]
    poll_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one scorer says of a sample, and why.

    Args:
        verdict: e.g. "correct", "incorrect", "timeout", or of a step check "valid", "invalid", "unknown".
        tone: a `wording.Tone`.
    """

    scorer: str
    verdict: str
    tone: str
    predicted: str | None
    expected: str | None
    explanation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleLine:
    """One sample in the browser's list. `label` and `tone` sum its verdicts up, e.g. "false positive"."""

    id: str
    problem_id: str
    sample_index: int
    model: str
    label: str
    tone: str
    completion_tokens: int
    flops: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleDetail:
    """One sample in full.

    Args:
        prompt: as rendered, exactly what the engine got.
        truncated_at: max_tokens where the completion was cut there, else None.
        attempt: the attempt that drew it.
    """

    line: SampleLine
    question: str
    reference: str
    prompt: str
    completion: str
    finish_reason: str
    truncated_at: int | None
    prompt_tokens: int
    cached_tokens: int
    flops_paper: float
    seed: int
    attempt: str
    error: str | None
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleFilter:
    """A filter and how many samples it keeps; None where counting would read every row."""

    key: str
    label: str
    num_samples: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplesPage:
    """What do the samples look like?

    Args:
        shown: key of the filter in force.
        selected: the sample in the reading pane; None when the list is empty.
        cursor: where this page of the list begins; "" at the start. It is part of every link in the list.
        next_cursor: where the next one begins; None on the last.
    """

    shell: Shell
    job_id: str
    job_name: str
    headline: str
    filters: tuple[SampleFilter, ...]
    shown: str
    samples: tuple[SampleLine, ...]
    selected: SampleDetail | None
    cursor: str
    next_cursor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLine:
    """Generator engines of one model. `etag` goes back with a scale order: two operators cannot undo each other.

    Args:
        replicas: engines wanted while there is work; 0 drains the pool.
        minimum: engines kept without work.
        idle_s: how long an engine without work stays [s].
        failures: engines that failed to load since one last did.
    """

    model: str
    replicas: int
    ready: int
    starting: int
    minimum: int
    idle_s: float
    failures: int
    etag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HostLine:
    """One host process. `state` is a key of `wording.HOST_WORDS`."""

    name: str
    kind: str
    model: str
    state: str
    is_stopping: bool
    node: str
    pid: int | None
    load_s: float | None
    created_at: datetime
    idle_since: datetime | None
    ended_at: datetime | None
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkersPage:
    """Who works, and is anybody stuck?

    Args:
        cluster: the cluster in words.
    """

    shell: Shell
    headline: str
    cluster: str
    pools: tuple[PoolLine, ...]
    hosts: tuple[HostLine, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLine:
    """One model of the catalogue. `colour` is its colour in every figure."""

    name: str
    colour: str
    source: str
    revision: str
    parameters: int
    context_len: int
    flops_per_token: float
    dtype: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelsPage:
    """Which models can generate, and what does a token of each cost?

    Args:
        reference_len: the context length `flops_per_token` is quoted for [tokens].
    """

    shell: Shell
    headline: str
    reference_len: int
    models: tuple[ModelLine, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemSetLine:
    """One registered problem set."""

    name: str
    num_problems: int
    num_levels: int | None
    has_structure: bool
    fingerprint: str
    source: str
    example: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemsPage:
    """Which problems are there?"""

    shell: Shell
    headline: str
    problem_sets: tuple[ProblemSetLine, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageLine:
    """The ledger summed over one job, model and stage."""

    job_id: str
    job_name: str
    model: str
    stage: str
    useful_flops: float
    wasted_flops: float
    prompt_tokens: int
    completion_tokens: int
    busy_hours: float


@dataclass(frozen=True, slots=True, kw_only=True)
class UsagePage:
    """Who used what?

    Args:
        period: in words, e.g. "the last 7 days".
        csv_path: where the same rows come as CSV.
    """

    shell: Shell
    headline: str
    period: str
    csv_path: str
    lines: tuple[UsageLine, ...]
    figures: tuple[Figure, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonPage:
    """Was the compute well spent? The body is the offline report's.

    Args:
        downloads: format and address of the same comparison as a file.
    """

    shell: Shell
    comparison: Comparison
    figures: tuple[Figure, ...]
    downloads: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorPage:
    """What happened, and what to do next."""

    shell: Shell
    status: int
    title: str
    detail: str
    next_step: str


Page = (
    OverviewPage
    | JobPage
    | SamplesPage
    | WorkersPage
    | ModelsPage
    | ProblemsPage
    | UsagePage
    | ComparisonPage
    | ErrorPage
)


def overview_headline(jobs: tuple[JobLine, ...]) -> str:
    """One line such as `1 job running, 62 % of its budget spent, nothing waiting.` that answers the page's question."""
    running = [job for job in jobs if job.phase in ("running", "preparing")]
    stuck = [job for job in running if job.attention is not None]
    waiting = [*(job for job in jobs if job.phase == "queued"), *stuck]
    if not jobs:
        return "No job has been submitted yet."
    if not running:
        idle = "Nothing is running"
        return f"{idle}, {wording.plural(len(waiting), 'job')} waiting." if waiting else f"{idle}, nothing waiting."
    share = sum(job.budget.spent_share for job in running) / len(running)
    owner = "its budget" if len(running) == 1 else "their budgets on average"
    last = wording.plural(len(waiting), "job") + " waiting" if waiting else "nothing waiting"
    return (
        f"{wording.plural(len(running), 'job')} running, {wording.percent(share, digits=0)} of {owner} spent, {last}."
    )


def job_headline(job: JobLine) -> str:
    """One line such as `Running: 62 % of 1.31e12 FLOPs spent, 7,480 samples, about 2 min 05 s left.`."""
    word = wording.state_word(wording.JOB_WORDS, job.phase).word.capitalize()
    spent = wording.percent(job.budget.spent_share, digits=0)
    parts = [
        f"{spent} of {wording.flops(job.budget.limit)} {job.budget.unit} spent",
        wording.plural(job.samples, "sample"),
    ]
    if job.eta_s is not None:
        parts.append(f"about {wording.duration(job.eta_s)} left")
    return f"{word}: {', '.join(parts)}."
