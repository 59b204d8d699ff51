"""The one task state machine, and the arithmetic of planned samples.

    PENDING -> SUBMITTED -> RUNNING -> SUCCEEDED | FAILED | CANCELLED
    SUBMITTED | RUNNING -> LOST -> PENDING | FAILED         host gone; its own retry budget
    SUBMITTED | RUNNING -> PENDING                          work handed back (pause, drain) or a failure worth a retry
    PENDING -> CANCELLED                                    job over before it began

`docs/task-states.md` says who causes each move. A task's current attempt is `<task_id>.<attempt>`; the number comes
from the database and is the fencing token: only the current attempt may commit.
"""

import dataclasses
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import numpy as np

from service.work import Indices, Runs, TaskKind

MAX_LOST = 5
"""Attempts a task may lose to hosts that died without a word: preemption is normal on a large cluster. A generate task
that lost so many is taken apart as well, for a prompt may kill the process before it can say anything."""
MAX_FAILED = 2
"""Attempts that may raise: our code or the model failing twice the same way will fail a third time. A generate task
whose engine died this often is taken apart, for one of its prompts may be what kills it."""
MAX_ENGINE_DEATHS = 60
"""Engines that may die of one job's tasks: a dozen find one deadly prompt among thousands, so this allows for a few,
and ends a job whose engine dies on everything."""


class TaskState(StrEnum):
    """Where a task stands."""

    pending = "pending"
    submitted = "submitted"
    running = "running"
    succeeded = "succeeded"
    failed = "failed"
    cancelled = "cancelled"
    lost = "lost"

    @property
    def is_terminal(self) -> bool:
        """Whether the task will never change again."""
        return self in (TaskState.succeeded, TaskState.failed, TaskState.cancelled)

    @property
    def is_in_flight(self) -> bool:
        """Whether an attempt may be alive on a host."""
        return self in (TaskState.submitted, TaskState.running)


ALLOWED_MOVES: dict[TaskState, frozenset[TaskState]] = {
    TaskState.pending: frozenset({TaskState.submitted, TaskState.cancelled}),
    TaskState.submitted: frozenset(
        {
            TaskState.running,
            TaskState.pending,
            TaskState.succeeded,
            TaskState.failed,
            TaskState.cancelled,
            TaskState.lost,
        }
    ),
    TaskState.running: frozenset(
        {TaskState.pending, TaskState.succeeded, TaskState.failed, TaskState.cancelled, TaskState.lost}
    ),
    TaskState.lost: frozenset({TaskState.pending, TaskState.failed, TaskState.cancelled}),
    TaskState.succeeded: frozenset(),
    TaskState.failed: frozenset(),
    TaskState.cancelled: frozenset(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRef:
    """A committed part of a generate attempt."""

    attempt_id: str
    part: int
    path: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A unit of work that is planned, leased, retried and settled as one.

    Args:
        order: position within the job; credit is granted in this order.
        arm: of the job whose prompts, samples or scores it is about; "" for tasks of no job. A prepare task serves all
            arms with the same prompts and is named after the first.
        attempt: number of the current attempt, from 1.
        runs: generate: every planned sample, whatever is committed already.
        remaining: generate and pending: what no attempt has committed; None means all of `runs`.
        source: score: the committed shard to grade.
        credit: amount reserved for the current attempt so far, settled parts included [ledger amount].
        settled: amount of it that is settled [ledger amount].
        settled_value: the same before rounding [cost units].
        num_parts: committed parts of the current attempt.
        busy_s: time spent on the current attempt, as far as it is known [s].
        written_s: of which its committed parts account for [s].
    """

    id: str
    job_id: str
    kind: TaskKind
    order: int
    model: str
    arm: str = ""
    state: TaskState = TaskState.pending
    attempt: int = 1
    host: str | None = None
    runs: Runs | None = None
    remaining: Runs | None = None
    source: ShardRef | None = None
    num_planned: int = 0
    credit: int = 0
    settled: int = 0
    settled_value: float = 0.0
    grant_version: int = 0
    is_final_sent: bool = False
    num_parts: int = 0
    busy_s: float = 0.0
    written_s: float = 0.0
    num_lost: int = 0
    num_failed: int = 0
    not_before: datetime | None = None
    submitted_at: datetime | None = None
    created_at: datetime | None = None
    error: str | None = None

    @property
    def attempt_id(self) -> str:
        """Name of the current attempt."""
        return f"{self.id}.{self.attempt}"

    @property
    def is_suspect(self) -> bool:
        """Whether the next engine that dies under this task shows that something in it is deadly."""
        return self.kind is TaskKind.generate and (self.num_failed >= MAX_FAILED - 1 or self.num_lost >= MAX_LOST - 1)

    @property
    def is_deadly(self) -> bool:
        """Whether engines died under this task so often that it must not run as it is."""
        return self.kind is TaskKind.generate and (self.num_failed >= MAX_FAILED or self.num_lost >= MAX_LOST)


def move(task: Task, to: TaskState, **changes: object) -> Task:
    """The task in its new state.

    A move back to `pending` starts the next attempt: number up by one, credit, host and parts cleared.

    Raises:
        ValueError: the state machine has no such move.
    """
    if to not in ALLOWED_MOVES[task.state]:
        allowed = ", ".join(sorted(ALLOWED_MOVES[task.state])) or "none, it is terminal"
        raise ValueError(f"task {task.id}: no move from {task.state} to {to}; allowed: {allowed}")
    if to is TaskState.pending:
        fresh: dict[str, object] = {
            "attempt": task.attempt + 1,
            "host": None,
            "credit": 0,
            "settled": 0,
            "settled_value": 0.0,
            "grant_version": 0,
            "is_final_sent": False,
            "num_parts": 0,
            "busy_s": 0.0,
            "written_s": 0.0,
            "submitted_at": None,
            "remaining": None,
        }
        changes = {**fresh, **changes}
    return dataclasses.replace(task, state=to, **changes)  # type: ignore[arg-type]


def count_samples(runs: Runs | None) -> int:
    """Number of samples that runs [n, 3] stand for."""
    return 0 if runs is None else int(runs[:, 2].sum())


def expand_runs(runs: Runs) -> Indices:
    """Runs [n, 3] as single samples [m, 2] in the same order."""
    counts = runs[:, 2]
    total = int(counts.sum())
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    offsets = np.arange(total, dtype=np.int32) - starts
    return np.column_stack([np.repeat(runs[:, 0], counts), np.repeat(runs[:, 1], counts) + offsets]).astype(np.int32)


def without(runs: Runs, committed: Indices) -> Runs:
    """The samples of `runs` that are not in `committed`, as runs of one sample each, order kept."""
    planned = expand_runs(runs)
    if len(committed):
        planned = planned[~np.isin(_as_keys(planned), _as_keys(committed))]
    return np.column_stack([planned, np.ones(len(planned), dtype=np.int32)]).astype(np.int32)


def to_runs(indices: Indices) -> Runs:
    """Single samples [m, 2], each once, as the fewest runs [n, 3], by problem and sample index."""
    found = indices[np.lexsort((indices[:, 1], indices[:, 0]))]
    is_next = (np.diff(found[:, 0]) == 0) & (np.diff(found[:, 1]) == 1)
    starts = np.flatnonzero(np.concatenate([[True], ~is_next])) if len(found) else np.zeros(0, dtype=np.int64)
    lengths = np.diff(starts, append=len(found))
    return np.column_stack([found[starts], lengths]).astype(np.int32)


def _as_keys(indices: Indices) -> np.ndarray:
    wide = indices.astype(np.int64)
    return (wide[:, 0] << 32) | wide[:, 1]
