"""How one report of a host changes what is known of it."""

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest

from service.cluster import HostKind, HostReport, HostState, Observation
from service.planner import Options
from service.planner.draft import Draft
from service.planner.health import START_LIMIT_S, fold_hosts, has_not_started
from service.planner.plan import HostView, Plan, PoolView, Seen, Snapshot

NOW = datetime(2026, 1, 1, tzinfo=UTC)


LOADING = HostView(
    name="generate-m-1",
    kind=HostKind.generator,
    model="m",
    state=HostState.loading,
    is_stopping=True,
    has_been_ready=False,
    created_at=NOW,
)


def fold(report: HostReport, host: HostView = LOADING) -> Plan:
    """What becomes of an engine, by default one that was loading when it was last heard of."""
    return draft_of(report, host).build()


def draft_of(report: HostReport, host: HostView) -> Draft:
    """A tick that has taken the report."""
    pool = PoolView(model="m", replicas=1, minimum=0, idle_s=600.0, failures=3, version=1)
    snapshot = Snapshot(jobs=(), tasks=(), hosts=(host,), pools=(pool,), num_hosts_ever=1)
    seen = Seen(observation=Observation(hosts={host.name: report}, nodes=()))
    draft = Draft(snapshot=snapshot, seen=seen, states={}, now=NOW, options=Options(data_dir="data"))
    fold_hosts(draft)
    return draft


@pytest.mark.parametrize(
    ("state", "load_s", "events"),
    [(HostState.ready, 2.5, ["generate-m-1 loaded in 2.5 s"]), (HostState.draining, None, [])],
)
def test_engine_is_called_ready_only_when_it_is(state: HostState, load_s: float | None, events: list[str]) -> None:
    plan = fold(HostReport(state=state, load_s=load_s))

    assert [event.message for event in plan.events if event.kind == "engine_ready"] == events
    assert [pool.failures for pool in plan.pools] == [0] * len(events)


@pytest.mark.parametrize(("before", "num_events"), [(HostState.ready, 1), (HostState.unreachable, 0)])
def test_engine_that_does_not_answer_is_told_of_once_and_ended_until_it_is_gone(
    before: HostState, num_events: int
) -> None:
    host = dataclasses.replace(LOADING, state=before, has_been_ready=True, is_stopping=before is HostState.unreachable)

    plan = fold(HostReport(state=HostState.unreachable), host)

    assert [event.message for event in plan.events] == ["generate-m-1 does not answer"] * num_events
    assert plan.stop_hosts == (("generate-m-1", True),)


@pytest.mark.parametrize(("pid", "is_waiting"), [(None, True), (7, False)])
def test_engine_that_a_new_controller_has_not_heard_of_waits_for_no_process_where_it_had_one(
    pid: int | None, is_waiting: bool
) -> None:
    created_at = NOW - timedelta(seconds=START_LIMIT_S + 1)
    host = dataclasses.replace(LOADING, is_stopping=False, created_at=created_at, pid=pid, node="node" if pid else None)

    (folded,) = draft_of(HostReport(state=HostState.starting), host).hosts.values()

    assert (folded.pid, folded.node) == (pid, host.node)
    assert has_not_started(draft_of(HostReport(state=HostState.starting), host), folded) is is_waiting
