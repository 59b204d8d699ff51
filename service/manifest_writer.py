"""Writes manifests beside the control loop: the loop asks, a thread writes, the loop hears of it at a later tick.

A large job's manifest takes seconds to write, and a loop that waited for it would leave every engine without credit
meanwhile. Invariant: a job's last manifest is asked for when nothing of the job can change any more, and the job ends
only after it is written; so a job that says it has ended has its manifest.
"""

from collections.abc import Collection
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from service.manifest import write_manifest
from service.store import Store

INTERVAL = timedelta(seconds=60)
"""A running job's manifest is renewed this often."""
SHARE_OF_TIME = 20
"""... but takes at most one in so many seconds of the writer, however large the job."""


@dataclass(slots=True, kw_only=True)
class _Job:
    written_at: datetime
    asked_at: datetime
    duration: timedelta = timedelta()
    is_sealing: bool = False
    is_sealed: bool = False
    writing: Future[Path] | None = None


class ManifestWriter:
    """Manifests of active jobs. Called by the loop's thread only.

    Args:
        executor: runs one write at a time; simulations pass one that runs it at once.
    """

    def __init__(self, store: Store, *, data_dir: str, executor: Executor | None = None) -> None:
        self._store, self._data_dir = store, data_dir
        self._executor = executor or ThreadPoolExecutor(max_workers=1, thread_name_prefix="manifest")
        self._jobs: dict[str, _Job] = {}

    def collect(self, active: Collection[str], now: datetime) -> frozenset[str]:
        """Takes what was written since the last call; returns the jobs whose last manifest is written.

        Raises:
            OSError: a manifest could not be written; it will be asked for again.
        """
        self._jobs = {job_id: job for job_id, job in self._jobs.items() if job_id in active or job.writing is not None}
        for job in self._jobs.values():
            if job.writing is not None and job.writing.done():
                done, job.writing = job.writing, None
                done.result()
                job.written_at, job.duration, job.is_sealed = now, now - job.asked_at, job.is_sealing
        return frozenset(job_id for job_id, job in self._jobs.items() if job.is_sealed)

    def renew(self, job_id: str, now: datetime) -> None:
        """Asks for the manifest of a job that goes on, if it is due."""
        job = self._jobs.setdefault(job_id, _Job(written_at=now, asked_at=now))
        if now - job.written_at > max(INTERVAL, SHARE_OF_TIME * job.duration):
            self._ask(job_id, job, now, is_sealing=False)

    def seal(self, job_id: str, now: datetime) -> None:
        """Asks for the last manifest of a job of which nothing will change any more."""
        self._ask(job_id, self._jobs.setdefault(job_id, _Job(written_at=now, asked_at=now)), now, is_sealing=True)

    def _ask(self, job_id: str, job: _Job, now: datetime, *, is_sealing: bool) -> None:
        # one that is being written began before this call and may miss the last part: the loop asks again
        if job.writing is None:
            job.asked_at, job.is_sealing = now, is_sealing
            job.writing = self._executor.submit(
                write_manifest, self._store, job_id, data_dir=self._data_dir, is_sealed=is_sealing
            )
