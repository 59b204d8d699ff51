"""Writes manifests beside the control loop: the loop asks, a thread writes, the loop hears of it at a later tick.

A large job's manifest takes seconds to write, and a loop that waited for it would leave every engine without credit
meanwhile. Invariant: a job's last manifest is asked for when nothing of the job can change any more, and the job ends
only after it is written; so a job that says it has ended has its manifest. One that cannot be written costs its own
job its end, and no other job anything.
"""

import logging
import time
from collections.abc import Collection
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from service.manifest import write_manifest
from service.planner.submit import job_dir
from service.shards import remove_unfinished
from service.store import Store

log = logging.getLogger(__name__)

INTERVAL = timedelta(seconds=60)
"""A running job's manifest is renewed this often."""
SHARE_OF_TIME = 20
"""... but takes at most one in so many seconds of the writer, however large the job."""
RETRY = timedelta(seconds=30)
"""After a failed write; a full disk does not get room within a tick."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What became of manifests since the last look.

    Args:
        sealed: jobs whose last manifest is written.
        errors: why a manifest could not be written, by job; it is tried again.
    """

    sealed: frozenset[str]
    errors: dict[str, str]


@dataclass(slots=True, kw_only=True)
class _Job:
    next_at: datetime
    is_sealing: bool = False
    is_sealed: bool = False
    writing: Future[float] | None = None


class ManifestWriter:
    """Manifests of active jobs. Called by the loop's thread only.

    With the last one goes what attempts that were killed left unfinished.

    Args:
        executor: runs one write at a time; simulations pass one that runs it at once.
    """

    def __init__(self, store: Store, *, data_dir: str, executor: Executor | None = None) -> None:
        self._store, self._data_dir = store, data_dir
        self._executor = executor or ThreadPoolExecutor(max_workers=1, thread_name_prefix="manifest")
        self._jobs: dict[str, _Job] = {}

    def collect(self, active: Collection[str], now: datetime) -> Written:
        """Takes what was written since the last call."""
        self._jobs = {job_id: job for job_id, job in self._jobs.items() if job_id in active or job.writing is not None}
        errors: dict[str, str] = {}
        for job_id, job in self._jobs.items():
            if job.writing is None or not job.writing.done():
                continue
            done, job.writing = job.writing, None
            if (error := done.exception()) is not None:
                log.error("manifest of %s not written", job_id, exc_info=error)
                errors[job_id] = f"{type(error).__name__}: {error}"
                job.next_at = now + RETRY
            else:
                job.next_at = now + max(INTERVAL, timedelta(seconds=SHARE_OF_TIME * done.result()))
                job.is_sealed = job.is_sealing
        return Written(sealed=frozenset(job_id for job_id, job in self._jobs.items() if job.is_sealed), errors=errors)

    def renew(self, job_id: str, now: datetime) -> None:
        """Asks for the manifest of a job that goes on, if it is due."""
        job = self._jobs.setdefault(job_id, _Job(next_at=now + INTERVAL))
        if now >= job.next_at:
            self._ask(job_id, job, is_sealing=False)

    def seal(self, job_id: str, now: datetime) -> None:
        """Asks for the last manifest of a job of which nothing will change any more."""
        job = self._jobs.setdefault(job_id, _Job(next_at=now))
        if not job.is_sealing or now >= job.next_at:
            self._ask(job_id, job, is_sealing=True)

    def close(self) -> None:
        """Waits for the write in progress; what has not begun is left to the next controller."""
        self._executor.shutdown(cancel_futures=True)

    def _ask(self, job_id: str, job: _Job, *, is_sealing: bool) -> None:
        # one that is being written began before this call and may miss the last part: the loop asks again
        if job.writing is None:
            job.is_sealing = is_sealing
            job.writing = self._executor.submit(self._write, job_id, is_sealing)

    def _write(self, job_id: str, is_sealed: bool) -> float:
        """Writes one manifest; the seconds that it took."""
        started = time.monotonic()
        write_manifest(self._store, job_id, data_dir=self._data_dir, is_sealed=is_sealed)
        if is_sealed:
            remove_unfinished(Path(job_dir(self._data_dir, job_id), "attempts"))
        return time.monotonic() - started
