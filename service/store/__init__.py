"""The database: the only truth about jobs, tasks and money. SQLAlchemy Core, synchronous.

HTTP handlers write rows here and wake the loop; the loop alone writes task state. Every method is one transaction.
"""

from datetime import datetime

from sqlalchemy import Engine

from service.planner.plan import Plan, Snapshot
from service.store.catalogue import Catalogue
from service.store.control import ControlStore
from service.store.database import open_database, reading
from service.store.jobs import JobStore
from service.store.reads import Reads


class Store:
    """One database, by what it is used for.

    Attributes:
        catalogue: models, problem sets and pools.
        jobs: submission and what people want of jobs.
        reads: pages and reports.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.catalogue = Catalogue(engine)
        self.jobs = JobStore(engine)
        self.reads = Reads(engine)
        self._control = ControlStore()

    @classmethod
    def open(cls, url: str) -> "Store":
        """Opens the database and migrates it."""
        return cls(open_database(url))

    def snapshot(self) -> Snapshot:
        """One bounded read of everything that is not over."""
        with reading(self.engine) as connection:
            return self._control.read_snapshot(connection)

    def commit(self, plan: Plan, now: datetime) -> None:
        """Applies a plan in one transaction, or nothing of it."""
        with self.engine.begin() as connection:
            self._control.write_plan(connection, plan, now)

    def close(self) -> None:
        """Closes every connection."""
        self.engine.dispose()


__all__ = ["Store"]
