"""What a generator host does with files: opens prompts, writes parts.

Owns the queue of its jobs and the order of an attempt's parts: they are numbered when they are queued and written in
that order, and after one that failed there are no more. Jobs take the host's lock only to note their result, so that
storage never stops the engine. Must not import ray or vllm.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue

import pyarrow as pa

from service.cluster import AttemptState, StopMode
from service.errors import IsoflopError
from service.receipts import Usage
from service.shards import write_part
from workers.attempt import Attempt
from workers.prepared import Prepared, read_prepared
from workers.samples import Drawn, sample_table

_OPEN_FILES = 8  # prepared files kept in memory


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """Rows on their way to storage."""

    attempt: Attempt
    prepared: Prepared
    part: int
    rows: list[Drawn]
    time: Usage


class PartWriter:
    """Jobs of one host, done one after the other by whoever calls `once` or `forever`.

    Args:
        lock: the host's; guards its attempts.
        on_done: called after every job.
    """

    engine_version = ""
    engine_seed: int | None = None

    def __init__(self, *, lock: threading.Lock, on_done: Callable[[], None]) -> None:
        self._lock = lock
        self._on_done = on_done
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._prepared: dict[str, Prepared] = {}

    def open_later(self, attempt: Attempt) -> None:
        """Queues reading an attempt's prompts."""
        self._jobs.put(lambda: self._open(attempt))

    def write_later(self, attempt: Attempt) -> None:
        """Queues the finished rows of an attempt as its next part. The caller holds the lock."""
        rows, attempt.rows = attempt.rows, []
        if not rows or attempt.prepared is None:
            return
        if attempt.has_gap:
            attempt.lose_rows(rows)
            return
        part = _Part(
            attempt=attempt, prepared=attempt.prepared, part=attempt.next_part, rows=rows, time=attempt.take_time()
        )
        attempt.next_part += 1
        attempt.pending_writes += 1
        self._jobs.put(lambda: self._write(part))

    def call_later(self, job: Callable[[], None]) -> None:
        """Queues a call behind everything queued so far."""
        self._jobs.put(job)

    def end_later(self) -> None:
        """Lets `forever` return once everything queued so far is done."""
        self._jobs.put(None)

    def once(self) -> bool:
        """Does one job; whether there was one."""
        try:
            job = self._jobs.get_nowait()
        except Empty:
            return False
        if job is not None:
            job()
            self._on_done()
        return True

    def forever(self) -> None:
        """Does jobs until told to end."""
        while (job := self._jobs.get()) is not None:
            job()
            self._on_done()

    def _open(self, attempt: Attempt) -> None:
        path = attempt.work.prepared_path
        try:
            if path not in self._prepared:
                while len(self._prepared) >= _OPEN_FILES:
                    del self._prepared[next(iter(self._prepared))]
                self._prepared[path] = read_prepared(path)
            with self._lock:
                attempt.open(self._prepared[path])
        except IsoflopError as error:
            with self._lock:
                if attempt.outcome is None:
                    attempt.end(AttemptState.failed, error=str(error), is_retriable=False)

    def _write(self, part: _Part) -> None:
        attempt = part.attempt
        if attempt.has_gap:
            self._lose(part)
            return
        try:
            table, usage, indices = sample_table(
                spec=attempt.spec,
                work=attempt.work,
                prepared=part.prepared,
                rows=part.rows,
                engine_version=self.engine_version,
                engine_seed=self.engine_seed,
                time=part.time,
            )
            receipt = write_part(
                out_dir=attempt.spec.out_dir, part=part.part, table=table, usage=usage, indices=indices
            )
        except (OSError, IsoflopError, pa.ArrowException) as error:
            message = f"cannot write part {part.part} to {attempt.spec.out_dir}: {error}"
            self._lose(part, message)
            return
        with self._lock:
            attempt.pending_writes -= 1
            attempt.receipts.append(receipt)

    def _lose(self, part: _Part, error: str | None = None) -> None:
        """Counts rows that no file will hold; with an error this is the first gap, and ends the attempt."""
        attempt = part.attempt
        with self._lock:
            attempt.pending_writes -= 1
            attempt.lose_rows(part.rows, part.time)
            if error is not None:
                attempt.has_gap = True
                attempt.stop = StopMode.abort
                attempt.end(AttemptState.failed, error=error)
