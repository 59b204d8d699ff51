"""How often and when a request is tried again.

Owns the decision and the count of what was lost. Pure: random numbers are given, nothing waits here. Invariant: a
request is charged at most `max_lost_tries` times, the try that succeeds included.
"""

import random

from service.endpoints import EndpointOptions
from workers.endpoint_answer import Lost, Refused, Rejected, TryFailed


class Tries:
    """The tries of one request.

    Args:
        rng: waits are drawn from it, so that requests that failed together do not come back together.
    """

    def __init__(self, options: EndpointOptions, rng: random.Random) -> None:
        self._options = options
        self._rng = rng
        self.num_refused = 0
        self.num_lost = 0

    def wait_after(self, failure: TryFailed) -> float | None:
        """Seconds until the next try; None where there is none. A server that names a wait is not asked sooner."""
        if isinstance(failure, Refused):
            self.num_refused += 1
            if self.num_refused >= self._options.max_refused_tries:
                return None
            if (asked_s := failure.retry_after_s) is not None:
                return None if asked_s > self._options.max_wait_s else asked_s + self._rng.uniform(0, 1) * self._base_s
            return self._backoff_s()
        if isinstance(failure, Lost):
            self.num_lost += 1
            return None if self.num_lost >= self._options.max_lost_tries else self._backoff_s()
        self.num_lost += isinstance(failure, Rejected) and failure.is_lost
        return None

    def text_of(self, failure: TryFailed) -> str:
        """Why the request ended without a completion, for people."""
        if isinstance(failure, Refused) and (failure.retry_after_s or 0) > self._options.max_wait_s:
            return (
                f"{failure}; it asked to wait {failure.retry_after_s:g} s, at most {self._options.max_wait_s:g} s are"
            )
        if self.num_refused + self.num_lost <= 1:
            return str(failure)
        return f"gave up after {self.num_refused} refused and {self.num_lost} lost tries, the last: {failure}"

    @property
    def _base_s(self) -> float:
        return min(self._options.backoff_s, self._options.max_backoff_s)

    def _backoff_s(self) -> float:
        """Exponential, with full jitter."""
        # the exponent is bounded, for a float is
        exponent = min(self.num_refused + self.num_lost - 1, 60)
        return self._rng.uniform(0, min(self._options.max_backoff_s, self._options.backoff_s * 2**exponent))
