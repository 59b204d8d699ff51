"""Whose weights an engine has, and when it is another model's turn.

Owns fairness between the models that one engine serves: swapping costs an empty engine and the time of the swap, so
those who can use the loaded weights go first for a while, and nobody waits for ever. Invariant: attempts overtake one
that waits for its weights for at most `PATIENCE` times as long as the last swap took. Only the engine thread changes
anything here. Must not import ray or vllm.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager

from service.cluster import HostState
from workers.attempt import Attempt
from workers.engine_protocol import Engine

PATIENCE = 20.0
"""With twenty times the time of a swap between two of them, swaps take a twentieth of the time at most."""
SHOWN_AFTER_S = 5.0
"""A swap that takes longer is reported as loading, so that one that never ends is noticed like a load that does not."""


class Turns:
    """Of one engine.

    Attributes:
        waiting: the first attempt in order that could go on if its weights were loaded, as of the last admission.
        num_swaps: swaps so far, failed ones included.
        swap_s: time that they took [s].
    """

    def __init__(self) -> None:
        self.waiting: Attempt | None = None
        self.num_swaps = 0
        self.swap_s = 0.0
        self._last_swap_s = 0.0
        self._waiting_since: float | None = None
        self._swapping_since: float | None = None

    @contextmanager
    def admission(self) -> Generator[None]:
        """Within it the host goes through its attempts in order, and calls `wait` for those that cannot go on."""
        self.waiting = None
        yield
        if self.waiting is None:
            self._waiting_since = None  # nobody was overtaken

    def wait(self, attempt: Attempt, now: float) -> None:
        """Takes note of an attempt whose weights are not loaded; the first one counts."""
        if self.waiting is None:
            self.waiting = attempt
            self._waiting_since = now if self._waiting_since is None else self._waiting_since

    def must_hold(self, now: float) -> bool:
        """Whether an attempt of the loaded weights must not overtake the one that waits any more."""
        if self.waiting is None or self._waiting_since is None:
            return False
        return now - self._waiting_since >= PATIENCE * self._last_swap_s

    @contextmanager
    def swap(self, clock: Callable[[], float]) -> Generator[None]:
        """Measures what happens within it: an empty engine gets the weights of `waiting`, or cannot have them."""
        self._swapping_since = started = clock()
        try:
            yield
        finally:
            self._last_swap_s = clock() - started
            self.num_swaps += 1
            self.swap_s += self._last_swap_s
            self.waiting = self._waiting_since = self._swapping_since = None

    def shown(self, state: HostState, load_s: float | None, now: float) -> tuple[HostState, float | None]:
        """State and load time to report: during a long swap an engine that was ready is loading."""
        elapsed_s = 0.0 if self._swapping_since is None else now - self._swapping_since
        is_loading = state is HostState.ready and elapsed_s > SHOWN_AFTER_S
        return (HostState.loading, elapsed_s) if is_loading else (state, load_s)


def has_weights(engine: Engine, attempt: Attempt) -> bool:
    """Whether the engine draws from the attempt's model and no other, and treats its server as the attempt reckons."""
    loaded, wanted = engine.model, attempt.work.model
    if loaded is None or (loaded.path, loaded.revision) != (wanted.path, wanted.revision):
        return False
    return loaded.endpoint == wanted.endpoint
