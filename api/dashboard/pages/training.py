"""Training: the list of training sets and students, one training set, one student."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from api.dashboard.pages.frame import Link, Shell
from api.dashboard.pages.job import EventLine
from service import wording
from service.figures import Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionLine:
    """A training set in a list. `phase` is a key of `wording.ARTIFACT_WORDS`.

    Args:
        sources: its jobs.
        rows: of the training set; None before it is made.
        considered: samples of its sources; None before it is made, or where its file is gone.
    """

    id: str
    name: str
    phase: str
    error: str | None
    sources: tuple[Link, ...]
    rows: int | None
    considered: int | None
    created_at: datetime

    @property
    def share(self) -> float:
        """Rows kept of those considered, 0 to 1; 0 while unknown."""
        return (self.rows or 0) / self.considered if self.considered else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneLine:
    """A student in a list. `phase` is a key of `wording.ARTIFACT_WORDS`.

    Args:
        colour: of its base.
        loss: of the last logged step; None before the first.
        flops: exact accounting, of committed checkpoints.
    """

    id: str
    name: str
    phase: str
    error: str | None
    base: str
    colour: str
    dataset: Link
    steps: int
    steps_done: int
    loss: float | None
    flops: float
    num_checkpoints: int
    created_at: datetime

    @property
    def share(self) -> float:
        """Steps done of those wanted, 0 to 1."""
        return self.steps_done / self.steps


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPage:
    """Which training sets and students are there, and does training get on?

    Args:
        limit: the most of each kind that are listed; older ones are found by the command line.
        poll_s: how often the page looks again [s]; None while nothing runs.
    """

    shell: Shell
    headline: str
    selections: tuple[SelectionLine, ...]
    finetunes: tuple[FinetuneLine, ...]
    limit: int
    poll_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterLine:
    """One filter of a selection.

    Args:
        setting: what it was asked for, in words.
        dropped: of the rows that the filter before it left.
        share: left of all samples, 0 to 1.
    """

    name: str
    setting: str
    rows: int
    dropped: int
    share: float
    rows_by_source: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginLine:
    """A job of a selection, and what stands behind it.

    Args:
        models: with their licenses, "unknown" where nobody states one.
        samples: all that it drew.
        flops: exact accounting, of all its samples.
    """

    job: Link
    problems: str
    models: tuple[str, ...]
    samples: int
    rows: int
    flops: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RowLine:
    """A row of a training set in the browser's list. `number` counts from 0."""

    number: int
    problem_id: str
    model: str
    label: str
    tone: str
    completion_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RowDetail:
    """A row of a training set in full; prompt and completion as they are trained on."""

    line: RowLine
    prompt: str
    completion: str
    job: Link
    sample_path: str
    sample_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeSet:
    """What is known of a training set once it is made.

    Args:
        facts: label, value and note.
        judged: what judges said, how often, and of what; empty without any.
        held_out: what was compared with evaluation sets and what was found, in words.
    """

    facts: tuple[tuple[str, str, str], ...]
    filters: tuple[FilterLine, ...]
    origins: tuple[OriginLine, ...]
    judged: tuple[tuple[str, str, str], ...]
    judges: tuple[Link, ...]
    held_out: str
    rows: tuple[RowLine, ...]
    selected: RowDetail | None
    num_rows: int
    path: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionPage:
    """What is in this training set, and how did it come out of its samples?

    Args:
        made: None before it is made, or where its file is gone.
        students: finetunes on it.
        document: resolved, as YAML.
        took_s: from submission to end [s]; None before that.
        poll_s: how often the page looks again [s]; None once nothing will change.
    """

    shell: Shell
    selection: SelectionLine
    headline: str
    error: str | None
    actions: tuple[str, ...]
    made: MadeSet | None
    figures: tuple[Figure, ...]
    students: tuple[Link, ...]
    events: tuple[EventLine, ...]
    document: str
    took_s: float | None
    poll_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointLine:
    """A student at some step, a model that jobs can name.

    Args:
        jobs: latest jobs that drew from it.
    """

    model: str
    step: int
    loss: float | None
    jobs: tuple[Link, ...]
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetunePage:
    """How far is this student, what did it cost, and where are its checkpoints?

    Args:
        facts: key, label, value and note; the keys are the same at any time.
        settings: hyperparameters by name.
        poll_s: how often the page looks again [s]; None once nothing will change.
    """

    shell: Shell
    run: FinetuneLine
    headline: str
    error: str | None
    actions: tuple[str, ...]
    facts: tuple[tuple[str, str, str, str], ...]
    figures: tuple[Figure, ...]
    checkpoints: tuple[CheckpointLine, ...]
    settings: tuple[tuple[str, str], ...]
    events: tuple[EventLine, ...]
    document: str
    poll_s: float | None


def training_headline(selections: Sequence[SelectionLine], finetunes: Sequence[FinetuneLine], *, limit: int) -> str:
    """One line such as `1 student in training, 20 % of its steps done; 2 training sets, 3 students made`."""
    if not selections and not finetunes:
        return "No training set has been made yet."
    running = [run for run in finetunes if run.phase == "running"]
    waiting = sum(each.phase == "queued" for each in (*selections, *finetunes))
    made = f"{_made(selections, 'training set')}, {_made(finetunes, 'student')} made"
    if limit in (len(selections), len(finetunes)):
        made += f" among the latest {limit} of each"
    if not running:
        idle = f"Nothing is in training, {waiting} waiting" if waiting else "Nothing is in training"
        return f"{idle}; {made}."
    share = wording.percent(sum(run.share for run in running) / len(running), digits=0)
    whose = "its steps" if len(running) == 1 else "their steps on average"
    return f"{wording.plural(len(running), 'student')} in training, {share} of {whose} done; {made}."


def _made(lines: Sequence[SelectionLine] | Sequence[FinetuneLine], noun: str) -> str:
    return wording.plural(sum(line.phase in ("succeeded", "finished_with_errors") for line in lines), noun)


def selection_headline(line: SelectionLine) -> str:
    """One line such as `315 of 4,000 samples teach, 7.9 % of what was drawn`."""
    if line.rows is None:
        return f"{wording.state_word(wording.ARTIFACT_WORDS, line.phase).word.capitalize()}: no rows yet."
    if line.considered is None:
        return f"{wording.plural(line.rows, 'row')}."
    kept = wording.percent(line.share)
    return f"{line.rows:,} of {wording.plural(line.considered, 'sample')} teach, {kept} of what was drawn."


def finetune_headline(line: FinetuneLine, eta_s: float | None) -> str:
    """One line such as `Running: 40 of 200 steps, loss 0.53, about 2 min 05 s left`."""
    parts = [f"{line.steps_done:,} of {wording.plural(line.steps, 'step')}"]
    if line.loss is not None:
        parts.append(f"loss {line.loss:.4g}")
    if eta_s is not None:
        parts.append(f"about {wording.duration(eta_s)} left")
    word = wording.state_word(wording.ARTIFACT_WORDS, line.phase).word.capitalize()
    return f"{word}: {', '.join(parts)}."
