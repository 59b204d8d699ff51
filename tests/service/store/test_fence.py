"""One controller at a time: the last one that took over commits, every earlier one is refused."""

from datetime import UTC, datetime

import pytest

from service.errors import AlreadyRunning
from service.planner import Plan
from service.planner.plan import EventWrite
from service.store import Store
from service.store.fence import DatabaseLock

NOW = datetime(2026, 1, 2, tzinfo=UTC)
PLAN = Plan(events=(EventWrite(job_id=None, kind="k", message="m"),))


@pytest.fixture
def other(store):
    opened = Store(store.engine)
    opened.take_over("another machine")
    return opened


def test_commit_after_another_took_over_is_refused_and_names_it(store, other):
    with pytest.raises(AlreadyRunning, match="another machine"):
        store.commit(PLAN, NOW)
    assert store.reads.events() == []
    other.commit(PLAN, NOW)
    store.take_over("back again")
    store.commit(PLAN, NOW)
    assert len(store.reads.events()) == 2


@pytest.mark.parametrize("store", ["postgresql"], indirect=True)
def test_second_lock_on_a_postgresql_database_is_refused_until_the_first_is_released(store, other):
    held = DatabaseLock(store.engine)
    with pytest.raises(AlreadyRunning, match="another machine"):
        DatabaseLock(store.engine)
    held.release()
    DatabaseLock(store.engine).release()
