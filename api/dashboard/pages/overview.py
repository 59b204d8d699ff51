"""The overview: jobs in a list, and whether everything gets on."""

from dataclasses import dataclass
from datetime import datetime

from api.dashboard.pages.frame import Shell
from service import wording
from service.figures import Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetView:
    """A limit and how much of it is gone, in the unit of its currency; 0 for an import, which spends nothing.

    Args:
        unit: "FLOPs", "tokens", "samples", "USD", "GPU-hours" or "CPU-hours".
        accounting: how FLOPs are counted, e.g. "exact"; "" for other units.
        overshoot: of `spent`, what is beyond the limit, which is soft for device time alone.
    """

    unit: str
    accounting: str
    limit: float
    spent: float
    reserved: float
    overshoot: float = 0.0

    @property
    def spent_share(self) -> float:
        """Spent of the limit, 0 to 1, or a little more where the limit is soft."""
        return self.spent / self.limit if self.limit else 0.0

    @property
    def reserved_share(self) -> float:
        """Reserved of the limit, 0 to 1."""
        return self.reserved / self.limit if self.limit else 0.0


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
class HeldLine:
    """What hosts of one pool, or trainers, did with the devices they held.

    Args:
        host: the pool's model, or "trainer".
        unit: "GPU-hours" or "CPU-hours".
        held_s: device-seconds.
        parts: of them by what was done, "busy", "load", "swap" and "idle"; together all.
    """

    host: str
    unit: str
    num_hosts: int
    held_s: float
    parts: tuple[tuple[str, float], ...]

    @property
    def shares(self) -> dict[str, float]:
        """Each part of what was held, 0 to 1."""
        return {name: seconds / self.held_s if self.held_s else 0.0 for name, seconds in self.parts}


@dataclass(frozen=True, slots=True, kw_only=True)
class OverviewPage:
    """Is everything getting on?

    Args:
        headline: the answer in one line, see `overview_headline`.
        engines_ready: generator engines that take work, of `engines_total`.
        tokens_per_s: completion tokens a second, all engines together.
        device_time_today: what devices worked for jobs and finetunes, in words, e.g. "1.25 GPU-hours".
        held: what engines and trainers held devices for.
        period: what `use` and the figures cover, in words, e.g. "the last 24 hours".
    """

    shell: Shell
    headline: str
    engines_ready: int
    engines_total: int
    tokens_per_s: float
    spent_today_flops: float
    device_time_today: str
    wasted_today_share: float
    jobs: tuple[JobLine, ...]
    period: str
    use: tuple[UseLine, ...]
    held: tuple[HeldLine, ...]
    figures: tuple[Figure, ...]

    @property
    def largest_use_flops(self) -> float:
        """Most FLOPs in one line of `use`: the length of the longest bar."""
        return max((line.useful_flops + line.wasted_flops for line in self.use), default=0.0)


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
