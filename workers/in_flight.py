"""The samples inside one engine: how they enter it, whose they are, how they leave.

Owns admission and settling. Invariants: attempts are served in the order of submission and samples in the order of the
plan; a later attempt moves ahead only while the first waits for credit, or for its weights; nothing is inside that no
attempt accounts for. The engine thread alone changes anything here, and the host holds its lock meanwhile. Must not
import ray or vllm.
"""

from collections.abc import Iterable, Mapping

from workers.attempt import Attempt
from workers.engine_protocol import Engine, Finished
from workers.prepared import Prepared
from workers.turns import Turns, has_weights

_WINDOW = 1.25  # samples inside the engine per running slot: the surplus waits, so that no step has an empty slot
_ADMISSIONS_PER_STEP = 256  # bounds how long the lock is held, and the wait before the first step
_PENDING_WRITES = 8  # parts an attempt may have waiting for storage before it admits no more
_TOKEN_COUNT_S = 0.5


class InFlight:
    """Of one engine.

    Args:
        turns: is told of attempts that wait for their weights.

    Attributes:
        busy_s: time that the engine's steps took [s].
        total_tokens: completion tokens so far, as of the last count; only grows [tokens].
    """

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._owner: dict[str, Attempt] = {}
        """By request id."""
        self._num_requests = 0
        self.busy_s = 0.0
        self.total_tokens = 0
        self._settled_tokens = 0
        self._counted_at = float("-inf")
        self._finished = 0
        self._finished_before = 0
        self._turnover = 0

    def __len__(self) -> int:
        return len(self._owner)

    def admit(self, engine: Engine, attempts: Iterable[Attempt], now: float) -> bool:
        """Adds samples in order, attempt after attempt, until credit or window ends; whether there was one."""
        with self._turns.admission():
            return self._admit(engine, attempts, now)

    def _admit(self, engine: Engine, attempts: Iterable[Attempt], now: float) -> bool:
        room = min(_window(engine) - len(self._owner), _ADMISSIONS_PER_STEP)
        num_rows = _ADMISSIONS_PER_STEP
        has_admitted = False
        for attempt in attempts:
            prepared = attempt.prepared
            if prepared is None or not attempt.is_open or attempt.pending_writes >= _PENDING_WRITES:
                continue
            is_loaded = has_weights(engine, attempt)
            while (sample := attempt.peek()) is not None and num_rows and attempt.fits(sample[0]):
                error = prepared.errors.get(sample[0])
                if error is None and not is_loaded:
                    self._turns.wait(attempt, now)
                    break
                if error is None and (room <= 0 or self._turns.must_hold(now)):
                    return has_admitted
                attempt.advance()
                has_admitted = True
                if error is not None:
                    attempt.fail_row(*sample, error)
                    self._finished += 1
                    num_rows -= 1
                else:
                    self._enter(engine, attempt, prepared, sample)
                    room -= 1
        return has_admitted

    def _enter(self, engine: Engine, attempt: Attempt, prepared: Prepared, sample: tuple[int, int]) -> None:
        problem, sample_index = sample
        self._num_requests += 1
        request_id = str(self._num_requests)
        # in flight before the engine knows of it: if add() raises, its worst case stays accounted for
        attempt.enter(request_id, problem, sample_index)
        self._owner[request_id] = attempt
        engine.add(
            request_id,
            prepared.tokens(problem),
            max_tokens=int(prepared.max_tokens[problem]),
            sampling=attempt.work.sampling,
            seed=attempt.seeds.of(prepared.problem_ids[problem], sample_index),
        )

    def settle(self, attempts: Iterable[Attempt], finished: list[Finished], step_s: float) -> None:
        """Takes what a step finished out of flight; attempts share the step's time by their samples inside."""
        self.busy_s += step_s
        share_s = step_s / len(self._owner)
        by_attempt: dict[Attempt, list[Finished]] = {}
        for attempt in attempts:
            if attempt.in_flight:
                attempt.spend_time(share_s * len(attempt.in_flight))
                by_attempt[attempt] = []
        for request in finished:
            by_attempt[self._owner.pop(request.request_id)].append(request)
        for attempt, requests in by_attempt.items():
            attempt.settle(requests)
        self._finished += len(finished)
        self._settled_tokens += sum(request.completion_tokens for request in finished)

    def drop_aborted(self, engine: Engine, attempts: Iterable[Attempt]) -> None:
        """Takes samples of aborted attempts out of the engine, unfinished."""
        for attempt in attempts:
            if attempt.is_aborted and attempt.in_flight:
                ids = list(attempt.in_flight)
                partial = engine.abort(ids)
                self._settled_tokens += sum(request.completion_tokens for request in partial)
                attempt.drop_in_flight(partial)
                for request_id in ids:
                    del self._owner[request_id]

    def lose(self, attempts: Iterable[Attempt], charges: Mapping[str, int] | None = None) -> dict[str, str]:
        """Writes off what was inside an engine that is gone; of each attempt that had something, for people, what.

        Args:
            charges: see `EngineDead`.
        """
        lost: dict[str, str] = {}
        for attempt in attempts:
            if attempt.in_flight:
                lost[attempt.id] = attempt.in_flight_text()
                attempt.lose_in_flight(charges)
        self._owner.clear()
        return lost

    def count_tokens(self, engine: Engine, now: float) -> None:
        """Brings `total_tokens` up to date if the last count is old."""
        if now - self._counted_at >= _TOKEN_COUNT_S:
            self._counted_at = now
            self.total_tokens = max(self.total_tokens, self._settled_tokens + engine.unfinished_tokens())

    def slots_ahead(self, engine: Engine) -> int:
        """How many samples may enter until the answer to this exchange is here. Called once an exchange."""
        # What left since the last exchange will leave until the next one too: twice that much more keeps the engine
        # full even when the answer to this report comes one exchange late.
        self._turnover = max(self._finished - self._finished_before, self._turnover // 2)
        self._finished_before = self._finished
        return _window(engine) - len(self._owner) + 2 * self._turnover


def _window(engine: Engine) -> int:
    return int(_WINDOW * engine.max_num_seqs)
