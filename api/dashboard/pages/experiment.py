"""Comparisons that run by one document: the list, and one of them in full."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from api.dashboard.pages.frame import Link, Shell
from service import wording
from service.experiments.report_text import ReportText
from service.figures import Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentLine:
    """One comparison in a list.

    Args:
        phase: a key of `wording.ARTIFACT_WORDS`.
        nodes: jobs, selections and finetunes it takes in all.
        flops: of all that it has used so far, exact accounting.
    """

    id: str
    name: str
    phase: str
    error: str | None
    arms: tuple[str, ...]
    students: tuple[str, ...]
    budgets: tuple[int, ...]
    nodes: int
    nodes_done: int
    flops: float
    created_at: datetime

    @property
    def share(self) -> float:
        """Done of all nodes, 0 to 1."""
        return self.nodes_done / self.nodes if self.nodes else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentsPage:
    """Which comparisons are there, and how far is each?

    Args:
        limit: how many are listed at most.
        poll_s: how often the page looks again [s]; None once nothing will change.
    """

    shell: Shell
    headline: str
    comparisons: tuple[ExperimentLine, ...]
    limit: int
    poll_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StageLine:
    """How far one stage of a comparison is.

    Args:
        planned: nodes it will have when the comparison is complete.
        active: submitted and not over.
        lost: failed or cancelled.
    """

    label: str
    explanation: str
    planned: int
    done: int
    active: int
    lost: int
    flops: float

    @property
    def share(self) -> float:
        """Done of planned, 0 to 1."""
        return min(1.0, self.done / self.planned) if self.planned else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLine:
    """One node that was submitted. `phase` is a key of `wording.ARTIFACT_WORDS`."""

    key: str
    link: Link
    phase: str
    is_shared: bool
    samples: int
    accuracy: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentPage:
    """Which data makes the better student, what did it cost to know, and how far is it?

    Args:
        actions: verbs that apply now, of "pause", "resume", "cancel".
        took_s: seconds from submission to end; None before that.
        text: the report of what is found so far.
        downloads: format and address of the same report as a file.
        poll_s: how often the page looks again [s]; None once nothing will change.
    """

    shell: Shell
    comparison: ExperimentLine
    error: str | None
    actions: tuple[str, ...]
    took_s: float | None
    stages: tuple[StageLine, ...]
    nodes: tuple[NodeLine, ...]
    text: ReportText
    figures: tuple[Figure, ...]
    downloads: tuple[tuple[str, str], ...]
    poll_s: float | None


def experiments_headline(comparisons: Sequence[ExperimentLine]) -> str:
    """One line such as `1 comparison running, 37 % of its nodes done; 2 ended`."""
    if not comparisons:
        return "No comparison has been submitted yet."
    ended = sum(line.phase in ("succeeded", "finished_with_errors", "failed", "cancelled") for line in comparisons)
    running = [line for line in comparisons if line.phase == "running"]
    rest = f"; {ended} ended" if ended else ""
    if not running:
        waiting = len(comparisons) - ended
        return f"Nothing is being compared{f', {waiting} waiting' if waiting else ''}{rest}."
    share = wording.percent(sum(line.share for line in running) / len(running), digits=0)
    whose = "its nodes" if len(running) == 1 else "their nodes on average"
    return f"{wording.plural(len(running), 'comparison')} running, {share} of {whose} done{rest}."
