"""A limit of requests and tokens a minute, kept by the side that sends.

Owns the arithmetic of two token buckets and of a pause that the other side asked for. Plain numbers on a clock that is
given: waits for nothing by itself.
"""

import math
from collections.abc import Callable

_SHORTEST_S = 1e-6  # a rest of rounding, which a clock in floats may not be able to move on by
_BURST_S = 6.0  # a bucket holds a tenth of a minute, so that no minute sees more than 1.1 times its limit


class TokenBucket:
    """So much a minute, and a little at once. What is taken may be more than the bucket holds: then it is in debt.

    Args:
        per_minute: what flows in [units a minute].
        clock: monotonic seconds.
    """

    def __init__(self, per_minute: float, clock: Callable[[], float]) -> None:
        self._rate = per_minute / 60
        # a limit under ten a minute still lets one through
        self._capacity = max(1.0, self._rate * _BURST_S)
        self._clock = clock
        self._level = self._capacity
        self._filled_at = clock()

    def wait_s(self, amount: float) -> float:
        """How long until `amount` may be taken [s]; one that never fits has to wait for a full bucket."""
        return max(0.0, (min(amount, self._capacity) - self._now()) / self._rate)

    def take(self, amount: float) -> None:
        """Takes it, whether or not it was waited for; a negative amount gives back."""
        self._level = min(self._capacity, self._now() - amount)

    def empty(self) -> None:
        """Takes all there is: nobody knows what was let through before."""
        self.take(self._capacity)

    def change(self, per_minute: float) -> None:
        """Lets so much flow in from now on; what was taken stays taken."""
        level = self._now()
        self._rate = per_minute / 60
        self._capacity = max(1.0, self._rate * _BURST_S)
        self._level = min(level, self._capacity)

    def _now(self) -> float:
        now = self._clock()
        self._level = min(self._capacity, self._level + (now - self._filled_at) * self._rate)
        self._filled_at = now
        return self._level


class RateLimit:
    """When the next request may be sent.

    Args:
        requests_per_minute: None for no limit.
        tokens_per_minute: None for no limit.
        clock: monotonic seconds.
    """

    def __init__(
        self, *, requests_per_minute: float | None, tokens_per_minute: float | None, clock: Callable[[], float]
    ) -> None:
        self._clock = clock
        self._requests = None if requests_per_minute is None else TokenBucket(requests_per_minute, clock)
        self._tokens = None if tokens_per_minute is None else TokenBucket(tokens_per_minute, clock)
        self._paused_until = -math.inf

    def change(self, *, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        """Other limits from now on. A pause and what is in debt stay, and a limit where there was none starts empty."""
        self._requests = self._changed(self._requests, requests_per_minute)
        self._tokens = self._changed(self._tokens, tokens_per_minute)

    def _changed(self, bucket: TokenBucket | None, per_minute: float | None) -> TokenBucket | None:
        if per_minute is None:
            return None
        if bucket is None:
            bucket = TokenBucket(per_minute, self._clock)
            bucket.empty()
        else:
            bucket.change(per_minute)
        return bucket

    def wait_s(self, tokens: int) -> float:
        """How long a request of that many tokens has to wait; 0 when it may go now [s]."""
        waits = [self._paused_until - self._clock(), 0.0]
        if self._requests is not None:
            waits.append(self._requests.wait_s(1))
        if self._tokens is not None:
            waits.append(self._tokens.wait_s(tokens))
        wait_s = max(waits)
        return wait_s if wait_s > _SHORTEST_S else 0.0

    def take(self, tokens: int) -> None:
        """Counts a request that is sent now."""
        if self._requests is not None:
            self._requests.take(1)
        if self._tokens is not None:
            self._tokens.take(tokens)

    def give_back(self, tokens: int) -> None:
        """Counts tokens that were taken for a request and not used by it."""
        if self._tokens is not None:
            self._tokens.take(-tokens)

    def pause(self, seconds: float) -> None:
        """Lets nothing through for so long; a shorter pause does not end a longer one."""
        self._paused_until = max(self._paused_until, self._clock() + seconds)
