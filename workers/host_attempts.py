"""The attempts of one host: what every kind of host does alike with its orders.

Owns which attempts a host knows. Invariants: an attempt is begun once, whatever is ordered twice; receipts are reported
until they are acknowledged; an attempt that is forgotten is ended and reported no more, leaves when it is over, and
does not come back. Not thread-safe: the host holds its lock. Must not import ray, vllm or torch.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from service.cluster import AttemptReport, AttemptState, Orders, StopMode
from service.errors import InvalidInput, UnknownName
from service.receipts import Receipt
from service.work import AttemptSpec
from workers.recent_ids import RecentIds


class HostAttempt(Protocol):
    """What `HostAttempts` needs of an attempt, whatever kind of host runs it."""

    receipts: list[Receipt]
    is_forgotten: bool

    @property
    def is_over(self) -> bool:
        """Whether it has ended, and its host has nothing to do for it any more."""
        ...

    def take_stop(self, mode: StopMode) -> None:
        """Ends it early; nothing if it is over."""
        ...


A = TypeVar("A", bound=HostAttempt)


class HostAttempts(Generic[A]):
    """Attempts in the order of their submission; those that are forgotten stay until they are over.

    Args:
        begin: what the host makes of a submission.
    """

    def __init__(self, begin: Callable[[AttemptSpec], A]) -> None:
        self._begin = begin
        self._by_id: dict[str, A] = {}
        self._forgotten = RecentIds()

    def __iter__(self) -> Iterator[A]:
        return iter(self._by_id.values())

    def reported(self) -> Iterator[A]:
        """Those that the controller still wants to hear of."""
        return (attempt for attempt in self if not attempt.is_forgotten)

    def get(self, attempt_id: str) -> A | None:
        """The attempt of that id, if it is known."""
        return self._by_id.get(attempt_id)

    def are_over(self) -> bool:
        """Whether the host has nothing to do for any of them."""
        return all(attempt.is_over for attempt in self)

    def stop_all(self, mode: StopMode) -> None:
        """Ends all of them early."""
        for attempt in self:
            attempt.take_stop(mode)

    def take(self, orders: Orders) -> None:
        """Carries out submissions, stops and acknowledgements; grants are for generators."""
        for spec in orders.submits:
            if spec.attempt_id not in self._by_id and spec.attempt_id not in self._forgotten:
                self._by_id[spec.attempt_id] = self._begin(spec)
        for stop in orders.stops:
            if (attempt := self.get(stop.attempt_id)) is not None:
                attempt.take_stop(stop.mode)
        for order in orders.acknowledges:
            if (attempt := self.get(order.attempt_id)) is None:
                continue
            attempt.receipts = [receipt for receipt in attempt.receipts if receipt.part >= order.num_parts]
            if order.is_forgotten:
                self._forgotten.add(order.attempt_id)
                attempt.is_forgotten = True
                attempt.take_stop(StopMode.abort)
        for attempt_id in [name for name, attempt in self._by_id.items() if attempt.is_forgotten and attempt.is_over]:
            del self._by_id[attempt_id]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why an attempt has no receipt. Text, because not every exception survives the way between processes."""

    error: str
    is_retriable: bool

    @classmethod
    def of(cls, error: BaseException) -> "Failure":
        """What an exception says; work that is stated wrongly stays wrong, everything else may pass."""
        is_retriable = not isinstance(error, InvalidInput | UnknownName)
        return cls(error=f"{type(error).__name__}: {error}", is_retriable=is_retriable)


@dataclass(slots=True, kw_only=True, eq=False)
class PlainAttempt:
    """An attempt that runs, and then has succeeded, failed or been stopped: a dispatcher's or a trainer's."""

    spec: AttemptSpec
    state: AttemptState = AttemptState.running
    receipts: list[Receipt] = field(default_factory=list[Receipt])
    error: str | None = None
    is_retriable: bool = True
    is_forgotten: bool = False

    @property
    def is_over(self) -> bool:
        """Whether it runs no more, and will not."""
        return self.state is not AttemptState.running

    def fail(self, failure: Failure) -> None:
        """Ends it with its reason."""
        self.state, self.error, self.is_retriable = AttemptState.failed, failure.error, failure.is_retriable

    def report_progress(self, *, admitted: int, finished: int) -> AttemptReport:
        """The facts, with progress as its host counts it."""
        return AttemptReport(
            attempt_id=self.spec.attempt_id,
            state=self.state,
            error=self.error,
            is_retriable=self.is_retriable,
            receipts=tuple(self.receipts),
            admitted=admitted,
            finished=finished,
        )
