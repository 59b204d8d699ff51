"""What a selection is asked for. Plain data; `service.selection.operators` does it.

Order of the operators, which is part of the meaning: keep, drop duplicates, decontaminate, problems, per problem,
shares, rows. Every choice is by a seeded order of its own, so a smaller subset is contained in a larger one (where no
later limit cuts).
"""

from dataclasses import dataclass
from enum import StrEnum


class Keep(StrEnum):
    """Which samples may teach.

    `correct` by the answer scorer; `verified` where the step check finds the reasoning valid as well; `judged` where
    more than half of what the judging jobs said of the sample is yes, whatever its answer (a judge that was asked of
    right answers alone keeps these); `majority` where the answer is the one that most samples of its problem give, all
    sources together, which needs no reference; `all` filters nothing. A problem whose most frequent answers tie has no
    majority and teaches nothing.

    A row that stands for an engine's error has no completion and never teaches. A completion cut at max_tokens teaches
    with `all` alone, even where its answer was found right: it would teach to end in the middle of a solution.
    """

    all = "all"
    correct = "correct"
    verified = "verified"
    judged = "judged"
    majority = "majority"


class Duplicates(StrEnum):
    """Two solutions of one problem are the same by: never, exact text, normalised text, sequence of calculations."""

    keep = "keep"
    exact = "exact"
    normalized = "normalized"
    equations = "equations"


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionSource:
    """A finished job, or some arms of it, and its part of the mix. One job is several sources where arms differ in it.

    Args:
        share: of the selected rows relative to the other sources', > 0; given for all sources or for none (then
            everything is pooled).
        arms: names of the job's arms whose samples are taken; none named is all.
    """

    job: str
    share: float | None = None
    arms: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionSpec:
    """A resolved selection document.

    Args:
        scorer: whose verdict counts; None is the first of the jobs' scorers that judges answers.
        per_problem: most rows of one problem, all sources together; None is no limit, 1 is one per problem.
        problems: share of the sources' problems to keep, in (0, 1], or None for all; solved or not, so that selections
            of several jobs over one problem set keep the same problems.
        rows: most rows of the training set; None is no limit.
        held_out: names of problem sets whose problems must not appear.
        ngram: words in a row that a question may not share with one held out, >= 5; None compares whole texts only.
        ask: template of a question about each row, see `service.selection.judging`; the rows are then written as a
            problem set for a judge as well. None writes none.
        judges: ids of jobs that answered such questions; their votes add up.
    """

    name: str
    sources: tuple[SelectionSource, ...]
    keep: Keep = Keep.correct
    scorer: str | None = None
    duplicates: Duplicates = Duplicates.exact
    per_problem: int | None = None
    problems: float | None = None
    rows: int | None = None
    held_out: tuple[str, ...] = ()
    ngram: int | None = 13
    seed: int = 0
    ask: str | None = None
    judges: tuple[str, ...] = ()

    @property
    def jobs(self) -> tuple[str, ...]:
        """Ids of the sources' jobs, each once."""
        return tuple(dict.fromkeys(source.job for source in self.sources))

    @property
    def source_names(self) -> tuple[str, ...]:
        """What each source is called: its job, and the arms where that is not enough."""
        is_enough = len(self.jobs) == len(self.sources)
        return tuple(
            source.job if is_enough or not source.arms else f"{source.job} ({', '.join(source.arms)})"
            for source in self.sources
        )
