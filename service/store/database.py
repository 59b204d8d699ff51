"""Opens the database: SQLite by default, PostgreSQL by URL; brings the schema up to date through Alembic."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event, text

MIGRATIONS = Path(__file__).parent / "migrations"


def open_database(url: str) -> Engine:
    """An engine on an up-to-date schema.

    Args:
        url: SQLAlchemy URL, e.g. "sqlite:////data/isoflop.db" or "postgresql+psycopg://...".
    """
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_immediate)
    migrate(engine)
    return engine


def migrate(engine: Engine) -> None:
    """Applies every migration that the database lacks."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


@contextmanager
def reading(engine: Engine) -> Generator[Connection]:
    """A connection that sees the database as of one instant, whatever is written meanwhile."""
    # SQLite's readers do so anyway
    isolation = {"isolation_level": "REPEATABLE READ"} if engine.dialect.name == "postgresql" else {}
    with engine.connect().execution_options(is_read_only=True, **isolation) as connection, connection.begin():
        yield connection


def lock_submissions(connection: Connection) -> None:
    """Makes submissions follow one another until the transaction ends; on SQLite every transaction does so anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _SUBMISSION_LOCK})


_SUBMISSION_LOCK = 0x150F10
"""Any number that no other user of the database locks."""


def _configure_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions begin in _begin_immediate, not when the driver sees a write
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_immediate(connection: Any) -> None:
    # a read that later writes would fail with SQLITE_BUSY_SNAPSHOT; taking the write lock first cannot
    options = connection.get_execution_options()
    connection.exec_driver_sql("BEGIN" if options.get("is_read_only") else "BEGIN IMMEDIATE")
