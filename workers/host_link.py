"""What the controller's side knows of one host process: its last answer, orders on their way, and how it ended.

Owns how answers and silences become a `HostReport`. Invariant: `dead` is said only when somebody has made sure that
the process is gone. Times are monotonic seconds. Not thread-safe: its owner holds a lock. Must not import ray.
"""

import dataclasses
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from service.cluster import HostReport, HostState, Orders
from workers.hosts import Answer, Process

_BUSY_S = 0.1  # between two calls to a host that has work
_IDLE_S = 1.0
_WAITING_S = 30.0  # after this long without a process the report says what the host waits for
_LOADING_PATIENCE = 4.0
_BEFORE_READY = (HostState.starting, HostState.loading)


@dataclass(slots=True, kw_only=True)
class HostLink:
    """What is known of one host.

    Args:
        needs: resources it was asked to be started with, for people.
        handle: the actor, once it is asked for.
        ref: the call that is outstanding, and `sent` the orders in it.
        trouble: why it does not answer, or why it died.
        lost_at: since when the cluster holds the actor for gone; its process may still run.
        probe: a question after a process on another machine, outstanding.
        is_inherited: an earlier controller started it.
    """

    name: str
    needs: str
    handle: Any = None
    process: Process | None = None
    node: str | None = None
    last: HostReport = field(default_factory=lambda: HostReport(state=HostState.starting))
    pending: deque[Orders] = field(default_factory=deque)
    ref: Any = None
    sent: tuple[Orders, ...] = ()
    called_at: float = 0.0
    next_call_at: float = 0.0
    answered_at: float = 0.0
    trouble: str | None = None
    should_drain: bool = False
    lost_at: float | None = None
    probe: Any = None
    is_dead: bool = False
    is_inherited: bool = False

    def take_answer(self, answer: Answer, now: float) -> None:
        """Takes what the host said, and decides when to ask again."""
        self.last = dataclasses.replace(answer.report, is_inherited=self.is_inherited)
        self.answered_at, self.trouble = now, None
        is_idle = answer.report.state is HostState.ready and not answer.report.attempts
        self.next_call_at = now if self.pending else now + (_IDLE_S if is_idle else _BUSY_S)

    def lose(self, now: float, error: str | None = None) -> None:
        """Takes note that the actor is gone. Without an error it just vanished."""
        if self.lost_at is None:
            self.lost_at, self.ref = now, None
            self.pending.clear()
            self.trouble = self.last.error or error

    def report(self, now: float, unreachable_s: float) -> HostReport:
        """The latest facts."""
        if self.is_dead:
            pid = None if self.process is None else self.process.pid
            return self.last.at_death(error=self.trouble, pid=pid, node=self.node)
        if self.process is None and self.lost_at is None:
            waited_s = now - self.answered_at
            waits = f"waiting for {waited_s:.0f} s for {self.needs}" if waited_s > _WAITING_S else None
            return dataclasses.replace(self.last, error=self.trouble or waits)
        # imports and weights may hold the interpreter for long
        patience_s = unreachable_s * (_LOADING_PATIENCE if self.last.state in _BEFORE_READY else 1.0)
        if self.lost_at is not None or now - self.answered_at > patience_s:
            return dataclasses.replace(self.last, state=HostState.unreachable, error=self.trouble)
        return self.last
