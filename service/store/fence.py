"""Which controller may commit: the last one that took over. Its number stands in one row that every commit checks.

A controller that was paused, or cut off from the database, and wakes up after another has taken over can decide what it
likes: its commit is refused, and intent comes before action. What has begun on PostgreSQL, where several machines may
reach one database, holds on SQLite too, where `service.lock` refuses a second controller before it gets so far.
"""

import contextlib

from sqlalchemy import Connection, Engine, bindparam, select, text, update
from sqlalchemy.exc import DBAPIError

from service.errors import AlreadyRunning
from service.store import schema

_CONTROLLER_LOCK = 0x150F11
"""Any number that no other user of the database locks."""


def take_fence(connection: Connection, holder: str) -> int:
    """The next fencing number, which ends every earlier one."""
    row = schema.controller
    connection.execute(update(row).values(fence=row.c.fence + 1, holder=holder[:300]))
    return connection.execute(select(row.c.fence)).scalar_one()


def check_fence(connection: Connection, fence: int) -> None:
    """Raises AlreadyRunning unless `fence` is current; it stays so until the transaction ends."""
    # an update rather than a look: it locks the row against a controller that takes over meanwhile
    if connection.execute(_KEEP, {"mine": fence}).rowcount != 1:
        holder = connection.execute(select(schema.controller.c.holder)).scalar_one()
        raise AlreadyRunning(f"another controller has taken over this database: {holder}")


_KEEP = update(schema.controller).where(schema.controller.c.fence == bindparam("mine")).values(fence=bindparam("mine"))


class DatabaseLock:
    """Held while a controller runs on a PostgreSQL database, so that a second one is refused before it takes over.

    Belongs to a connection: one that breaks lets another controller in at once, one whose machine is gone within a
    minute, and then the fence decides. On SQLite, whose
    file lies in the data directory, `service.lock` does the same and this does nothing.

    Raises:
        AlreadyRunning: another controller runs on this database; the message names it.
    """

    def __init__(self, engine: Engine) -> None:
        self._connection: Connection | None = None
        if engine.dialect.name != "postgresql":
            return
        connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        if not connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": _CONTROLLER_LOCK}).scalar_one():
            holder = connection.execute(select(schema.controller.c.holder)).scalar_one()
            connection.close()
            raise AlreadyRunning(f"{engine.url.render_as_string()}: in use by another controller: {holder}; stop it")
        # a machine that vanished must not hold the lock for hours
        for setting, value in (("idle", 30), ("interval", 10), ("count", 3)):
            connection.execute(text(f"SET tcp_keepalives_{setting} = {value}"))
        self._connection = connection

    def release(self) -> None:
        """Lets another controller in."""
        if self._connection is not None:
            with contextlib.suppress(DBAPIError):  # a connection that is gone has let go of it
                self._connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _CONTROLLER_LOCK})
            self._connection.invalidate()  # the session must not go back to a pool
            self._connection.close()
