"""The database: the only truth about jobs, tasks and money. SQLAlchemy Core, synchronous.

HTTP handlers write rows here and wake the loop; the loop alone writes task state. Every method is one transaction.
"""

from datetime import datetime

from sqlalchemy import Engine

from service.planner.plan import Plan, Snapshot
from service.store.artifacts import ArtifactStore
from service.store.catalogue import Catalogue
from service.store.database import open_database, reading
from service.store.fence import check_fence, take_fence
from service.store.jobs import JobStore
from service.store.plan_writes import write_plan
from service.store.reads import Reads
from service.store.snapshots import SnapshotReader


class Store:
    """One database, by what it is used for.

    Attributes:
        catalogue: models, problem sets and pools.
        jobs: submission and what people want of generation jobs.
        artifacts: the same of selections and finetunes.
        reads: pages and reports.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.catalogue = Catalogue(engine)
        self.jobs = JobStore(engine)
        self.artifacts = ArtifactStore(engine)
        self.reads = Reads(engine)
        self._snapshots = SnapshotReader()
        self._fence = 0

    @classmethod
    def open(cls, url: str) -> "Store":
        """Opens the database and migrates it."""
        return cls(open_database(url))

    def snapshot(self) -> Snapshot:
        """One bounded read of everything that is not over."""
        with reading(self.engine) as connection:
            return self._snapshots.read(connection)

    def take_over(self, holder: str) -> None:
        """From now on this store commits plans, and every earlier one is refused.

        Args:
            holder: who this is, for the one that is refused.
        """
        with self.engine.begin() as connection:
            self._fence = take_fence(connection, holder)

    def commit(self, plan: Plan, now: datetime) -> None:
        """Applies a plan in one transaction, or nothing of it.

        Raises:
            AlreadyRunning: another controller has taken over since.
        """
        with self.engine.begin() as connection:
            check_fence(connection, self._fence)
            write_plan(connection, plan, now)

    def close(self) -> None:
        """Closes every connection."""
        self.engine.dispose()


__all__ = ["Store"]
