"""One attempt at a generate task: its plan, its credit, what is inside the engine and what waits to be written.

Owns the promise that a generator never spends more than it was granted: a sample is admitted only while
`used + inflight_worst + worst_case(sample) <= credit`. Invariant: every planned sample is exactly one of in a part,
in `rows`, in flight, or not yet drawn; none is skipped. Knows no engine, thread or file; must not import ray or vllm.

Costs are summed as whole units, each sample's rounded up: Python integers add exactly where floats would drift past
the credit by a last bit.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from service.cluster import AttemptReport, AttemptState, Grant, StopMode
from service.currency import Currency, actual_costs, worst_cases
from service.devices import ONE_CORE, Devices
from service.errors import InvalidInput
from service.receipts import Receipt, Usage
from service.work import AttemptSpec, GenerateWork, Indices
from workers.engine_protocol import Finished
from workers.prepared import Prepared
from workers.samples import Drawn, IntArray, SampleSeeds, prompt_tokens_of, usage_of

_LOOKAHEAD_S = 10.0  # of device time: topped up at half of it, so the ledger gets a row in 5 s and engine
_DRAINING_S = 2.0  # the same for an attempt whose last samples run: it takes a part of the engine, and soon none


@dataclass(slots=True, kw_only=True, eq=False)
class Attempt:
    """State of one attempt. Mutable, guarded by its host's lock.

    Args:
        used: cost of all finished samples and of what was wasted [units of the currency, each sample rounded up]; of
            device time all that has passed, for samples in flight too.
        inflight_worst: worst case of the samples in flight [the same units].
        devices: that its engine holds.
        busy_s: engine time so far [s].
        flushed_s: ... of which the rows up to the last flush took [s].
        outcome: how it ended; reported once everything is written.
    """

    spec: AttemptSpec
    work: GenerateWork
    seeds: SampleSeeds
    devices: Devices = ONE_CORE
    prepared: Prepared | None = None
    credit: float = 0.0
    grant_version: int = 0
    is_final: bool = False
    stop: StopMode | None = None
    used: int = 0
    inflight_worst: int = 0
    admitted: int = 0
    finished: int = 0
    in_flight: dict[str, tuple[int, int]] = field(default_factory=dict)
    """(problem, sample index) by request id."""
    rows: list[Drawn] = field(default_factory=list)
    busy_s: float = 0.0
    flushed_s: float = 0.0
    flushed_at: float = 0.0
    next_part: int = 0
    pending_writes: int = 0
    receipts: list[Receipt] = field(default_factory=list)
    outcome: AttemptState | None = None
    error: str | None = None
    is_retriable: bool = True
    is_forgotten: bool = False
    has_gap: bool = False
    """A part could not be written: later ones would never be found, so there are none."""
    returned: Indices | None = None
    wasted: Usage = field(default_factory=Usage)
    dropped: list[tuple[int, int]] = field(default_factory=list)
    _runs: list[list[int]] = field(default_factory=list)
    _run: int = 0
    _offset: int = 0
    _worst: list[int] = field(default_factory=list)
    _worst_array: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    @property
    def id(self) -> str:
        """The attempt's id."""
        return self.spec.attempt_id

    @property
    def is_open(self) -> bool:
        """Whether samples may be admitted, credit permitting."""
        return self.prepared is not None and self.outcome is None and self.stop is None

    @property
    def is_over(self) -> bool:
        """Whether it has ended, and everything of it is written."""
        return self.outcome is not None and not self.pending_writes and not self.in_flight

    @property
    def is_aborted(self) -> bool:
        """Whether what is inside the engine is to leave it unfinished."""
        return self.stop is StopMode.abort

    def take_stop(self, mode: StopMode) -> None:
        """Admits no more; an abort is not taken back."""
        if not self.is_aborted:
            self.stop = mode

    def in_flight_text(self) -> str:
        """What is inside the engine, for people."""
        problems = sorted({problem for problem, _ in self.in_flight.values()})
        shown = ", ".join(map(str, problems[:8])) + (", …" if len(problems) > 8 else "")
        return f"{len(self.in_flight)} samples of {self.id} in flight (problems {shown})"

    def open(self, prepared: Prepared) -> None:
        """Gives the attempt its prompts.

        Raises:
            InvalidInput: the plan names a problem that the prompts do not have, or an empty run.
        """
        runs, num_problems = self.work.runs, len(prepared.problem_ids)
        if self.work.refused:
            refusals = dict.fromkeys(self.work.refused, "refused: the engine died on this problem")
            prepared = dataclasses.replace(prepared, errors=refusals | prepared.errors)
        if len(runs) and (runs.min() < 0 or runs[:, 0].max() >= num_problems or runs[:, 2].min() < 1):
            raise InvalidInput(
                f"{self.id}: runs must name problems 0..{num_problems - 1} and at least one sample, got problems "
                f"{runs[:, 0].min()}..{runs[:, 0].max()} with {runs[:, 2].min()} samples or more"
            )
        worst = worst_cases(
            self.work.currency,
            self.work.model.pricing,
            prompt_tokens=prepared.prompt_tokens,
            max_tokens=prepared.max_tokens,
        )
        worst[list(prepared.errors)] = 0.0
        self._worst_array = np.ceil(worst)
        self._worst = [int(amount) for amount in self._worst_array.tolist()]
        self._runs = runs.tolist()
        self.prepared = prepared

    def peek(self) -> tuple[int, int] | None:
        """The next planned sample (problem, sample index), or None when all are drawn."""
        if self._run == len(self._runs):
            return None
        problem, first, _ = self._runs[self._run]
        return problem, first + self._offset

    def worst(self, problem: int) -> int:
        """Worst case of one sample of that problem."""
        return self._worst[problem]

    def fits(self, problem: int) -> bool:
        """Whether the credit covers one more sample of that problem. One that cannot be sampled needs none."""
        worst = self._worst[problem]
        return worst == 0 or self.used + self.inflight_worst + worst <= self.credit

    def advance(self) -> None:
        """Counts the sample `peek` showed as admitted."""
        self.admitted += 1
        self._offset += 1
        if self._offset == self._runs[self._run][2]:
            self._run += 1
            self._offset = 0

    def grant(self, grant: Grant) -> None:
        """Takes a newer grant; what is already spent or promised cannot be taken back."""
        if grant.version <= self.grant_version:
            return
        self.grant_version = grant.version
        self.is_final = grant.is_final
        self.credit = max(grant.credit, _at_least(self.used + self.inflight_worst))

    def enter(self, request_id: str, problem: int, sample_index: int) -> None:
        """Counts a sample as in flight."""
        self.in_flight[request_id] = (problem, sample_index)
        self.inflight_worst += self._worst[problem]

    def fail_row(self, problem: int, sample_index: int, error: str) -> None:
        """Writes down a sample that cannot be drawn."""
        self.rows.append(Drawn(problem, sample_index, "", 0, 0, "error", error))
        self.finished += 1

    def settle(self, finished: Sequence[Finished]) -> None:
        """Takes finished samples out of flight, at their actual cost."""
        if not finished:
            return
        left = self._leave(finished)
        good = [entry for entry in left if entry.finish_reason != "error"]
        self.used += self._cost(good)
        # an error row costs nothing by itself, whatever the engine did before it gave up is waste
        self._waste([entry for entry in left if entry.finish_reason == "error" and entry.completion_tokens])
        self.finished += len(left)
        self.rows += [
            entry if entry.finish_reason != "error" else entry._replace(text="", completion_tokens=0, cached_tokens=0)
            for entry in left
        ]

    def drop_in_flight(self, partial: Sequence[Finished]) -> None:
        """Takes everything out of flight: what the engine had computed is waste, the samples are to be returned."""
        self.dropped += self.in_flight.values()
        self._waste(self._leave(partial))
        self.inflight_worst -= sum(self._worst[problem] for problem, _ in self.in_flight.values())
        self.in_flight.clear()

    def lose_in_flight(self, charges: Mapping[str, int] | None = None) -> None:
        """The engine is gone: nobody knows how far it came, so everything in flight is waste at its worst case.

        Args:
            charges: how often each request may have been paid for, by id, where the engine could still say.
        """
        if self.prepared is None or not self.in_flight:
            return
        max_tokens, most = self.prepared.max_tokens, self.work.model.pricing.max_charges
        lost: list[Drawn] = []
        for request_id, (problem, sample_index) in self.in_flight.items():
            number = most if charges is None else charges.get(request_id, 0)
            lost += [Drawn(problem, sample_index, "", int(max_tokens[problem]), 0, "error", None)] * number
        self._waste(lost)
        self.in_flight.clear()
        self.inflight_worst = 0

    def spend_time(self, seconds: float) -> None:
        """Counts engine time, which is what a budget of device time is spent by."""
        self.busy_s += seconds
        if self.work.currency.is_soft:
            # a hair of rounding must not make a millisecond
            self.used = math.ceil(1000.0 * self.devices.count * self.busy_s - 1e-6)

    def take_time(self) -> Usage:
        """The time since the last flush, for the part that is to hold it."""
        time = Usage.of_time(self.busy_s - self.flushed_s, self.devices)
        self.flushed_s = self.busy_s
        return time

    def lose_rows(self, rows: Sequence[Drawn], time: Usage | None = None) -> None:
        """Finished samples that could not be written, and the time they took: paid for already, and now waste."""
        self.wasted += time or Usage()
        good = [row for row in rows if row.finish_reason != "error"]
        # taken back first, for `_waste` charges by its own rule: a budget in samples pays for rows, and these are none
        self.used -= self._cost(good)
        self._waste(good)

    def end(self, outcome: AttemptState, *, error: str | None = None, is_retriable: bool = True) -> None:
        """Fixes the outcome; a stopped attempt returns what it did not draw."""
        self.outcome, self.error, self.is_retriable = outcome, error, is_retriable
        self.returned = None
        if outcome is AttemptState.stopped:
            dropped = np.array(self.dropped, dtype=np.int32).reshape(-1, 2)
            self.returned = np.concatenate([dropped, self.rest()])

    def rest(self) -> Indices:
        """Planned samples not yet admitted, in order."""
        # an attempt that was never opened has no list of runs yet
        runs = self.work.runs[self._run :].astype(np.int64)
        if not len(runs):
            return np.zeros((0, 2), dtype=np.int32)
        firsts, counts = runs[:, 1].copy(), runs[:, 2].copy()
        firsts[0] += self._offset
        counts[0] -= self._offset
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return np.column_stack([np.repeat(runs[:, 0], counts), np.repeat(firsts, counts) + within]).astype(np.int32)

    def worst_of_next(self, slots: int) -> tuple[float, int]:
        """Worst case of the next planned samples, at most `slots` of them, and how many these are.

        Of device time it is what the engine will take for a while, as long as the attempt has or wants samples inside.
        """
        worst, number = self._worst_of_next(slots)
        if self.work.currency.is_soft and (self.in_flight or number):
            ahead_s = _LOOKAHEAD_S if self.is_open and self.peek() is not None else _DRAINING_S
            worst += 1000.0 * self.devices.count * ahead_s
        return worst, number

    def _worst_of_next(self, slots: int) -> tuple[float, int]:
        if slots <= 0 or not self.is_open or self._run == len(self._runs):
            return 0.0, 0
        ahead = np.asarray(self._runs[self._run : self._run + slots], dtype=np.int64)
        counts = ahead[:, 2]
        counts[0] -= self._offset
        before = np.cumsum(counts) - counts
        counts = np.clip(counts, 0, np.maximum(slots - before, 0))
        return float(self._worst_array[ahead[:, 0]] @ counts), int(counts.sum())

    def report(self, wanted_ahead: float) -> AttemptReport:
        """What the host says of the attempt; `wanted_ahead` is the worst case it would like on top."""
        # not before everything is out of flight: what runs may still cost something
        has_ended = self.is_over
        if has_ended and self.flushed_s < self.busy_s:
            self.wasted += self.take_time()  # samples that were dropped took it: no part will hold it
        upcoming = self.peek() if self.is_open else None
        waits = upcoming is not None and not self.fits(upcoming[0])
        return AttemptReport(
            attempt_id=self.id,
            state=self.outcome if has_ended and self.outcome else AttemptState.running,
            error=self.error if has_ended else None,
            is_retriable=self.is_retriable,
            receipts=tuple(self.receipts),
            credit_held=self.credit,
            grant_version=self.grant_version,
            used=float(self.used),
            inflight_worst=float(self.inflight_worst),
            next_worst=float(self._worst[upcoming[0]]) if upcoming is not None and waits else 0.0,
            wanted=float(self.used + self.inflight_worst) + wanted_ahead,
            waiting=int(self.work.runs[:, 2].sum()) - self.admitted,
            admitted=self.admitted,
            finished=self.finished,
            returned=self.returned if has_ended else None,
            wasted=self.wasted,
            busy_s=self.busy_s,
        )

    def _leave(self, finished: Sequence[Finished]) -> list[Drawn]:
        left: list[Drawn] = []
        lost: list[Drawn] = []
        for request_id, text, completion_tokens, cached_tokens, reason, error, lost_tries, prompt_tokens in finished:
            problem, sample_index = self.in_flight.pop(request_id)
            self.inflight_worst -= self._worst[problem]
            left.append(
                Drawn(problem, sample_index, text, completion_tokens, cached_tokens, reason, error, prompt_tokens)
            )
            if lost_tries and self.prepared is not None:
                max_tokens = int(self.prepared.max_tokens[problem])
                lost += [Drawn(problem, sample_index, "", max_tokens, 0, "error", None)] * lost_tries
        self._waste(lost)
        return left

    def _cost(self, drawn: Sequence[Drawn]) -> int:
        if not drawn:
            return 0
        prompt, cached, completion = self._token_columns(drawn)
        costs = actual_costs(
            self.work.currency,
            self.work.model.pricing,
            prompt_tokens=prompt,
            cached_tokens=cached,
            completion_tokens=completion,
        )
        return sum(map(int, np.ceil(costs).tolist()))

    def _waste(self, drawn: Sequence[Drawn]) -> None:
        if not drawn:
            return
        # a budget in samples counts rows, and these make none
        if self.work.currency is not Currency.samples:
            self.used += self._cost(drawn)
        prompt, cached, completion = self._token_columns(drawn)
        self.wasted += usage_of(
            self.work.model.pricing,
            prompt_tokens=prompt,
            cached_tokens=cached,
            completion_tokens=completion,
            is_truncated=np.zeros(len(drawn), dtype=np.bool_),
        )

    def _token_columns(self, drawn: Sequence[Drawn]) -> tuple[IntArray, IntArray, IntArray]:
        assert self.prepared is not None, "samples are drawn from an open attempt only"
        problem, _, _, completion, cached, _, _, counted = zip(*drawn, strict=True)
        return (
            prompt_tokens_of(self.prepared, problem, counted),
            np.array(cached, dtype=np.int64),
            np.array(completion, dtype=np.int64),
        )


def _at_least(amount: int) -> float:
    """The smallest float that is not below `amount`."""
    nearest = float(amount)
    return nearest if nearest >= amount else math.nextafter(nearest, math.inf)
