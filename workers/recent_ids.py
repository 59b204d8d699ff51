"""Ids of the attempts a host was told to forget, so that a late copy of their submission does not start them again.

Owns how many are kept. Copies come within seconds of the original, and thousands of attempts take minutes: the oldest
ids may go, and a host that lives for weeks does not grow. Must not import ray or vllm.
"""

MAX_IDS = 4096


class RecentIds:
    """The last `limit` ids that were added."""

    def __init__(self, limit: int = MAX_IDS) -> None:
        self._limit = limit
        self._ids: dict[str, None] = {}

    def add(self, attempt_id: str) -> None:
        """Keeps the id, and lets go of the oldest one when there are too many."""
        self._ids[attempt_id] = None
        if len(self._ids) > self._limit:
            del self._ids[next(iter(self._ids))]

    def __contains__(self, attempt_id: str) -> bool:
        return attempt_id in self._ids

    def __len__(self) -> int:
        return len(self._ids)
