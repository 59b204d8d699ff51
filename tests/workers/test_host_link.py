"""How answers and silences of a host process become a report."""

from typing import Any

import pytest

from service.cluster import AttemptReport, AttemptState, HostReport, HostState, Orders
from workers.host_link import HostLink
from workers.hosts import Answer, Process

PATIENCE_S = 30.0
RUNNING = AttemptReport(attempt_id="t.1", state=AttemptState.running)


def answered(
    state: HostState, *, at: float = 0.0, error: str | None = None, is_busy: bool = False, **meters: Any
) -> HostLink:
    link = HostLink(name="gen-1", needs="num_cpus=0.5")
    process = Process(pid=7, started_at=1.0)
    report = HostReport(state=state, error=error, pid=7, attempts=(RUNNING,) if is_busy else (), **meters)
    link.process, link.node = process, "node"
    link.take_answer(Answer(report=report, process=process), at)
    return link


def test_link_without_a_process_says_what_it_waits_for_after_a_while() -> None:
    link = HostLink(name="gen-1", needs="num_cpus=64")

    assert link.report(29.0, PATIENCE_S) == HostReport(state=HostState.starting)
    assert link.report(31.0, PATIENCE_S).error == "waiting for 31 s for num_cpus=64"
    assert link.report(500.0, PATIENCE_S).state is HostState.starting


@pytest.mark.parametrize(("state", "patience_s"), [(HostState.ready, 30.0), (HostState.loading, 120.0)])
def test_link_that_is_silent_for_too_long_is_unreachable_with_its_last_facts(
    state: HostState, patience_s: float
) -> None:
    link = answered(state, is_busy=True)

    assert link.report(patience_s, PATIENCE_S).state is state
    late = link.report(patience_s + 1.0, PATIENCE_S)
    assert (late.state, late.attempts) == (HostState.unreachable, (RUNNING,))


def test_link_is_dead_only_when_that_was_made_sure_and_then_lists_no_attempts() -> None:
    link = answered(HostState.ready, is_busy=True)
    link.pending.append(Orders())

    link.lose(5.0)
    assert link.report(5.0, PATIENCE_S).state is HostState.unreachable
    assert not link.pending
    link.is_dead = True

    assert link.report(6.0, PATIENCE_S) == HostReport(state=HostState.dead, pid=7, node="node")


def test_link_to_a_host_of_an_earlier_controller_says_so_in_every_report() -> None:
    link = HostLink(name="gen-1", needs="num_cpus=0.5", is_inherited=True)
    link.take_answer(Answer(report=HostReport(state=HostState.ready), process=Process(pid=7, started_at=1.0)), 0.0)

    assert link.report(1.0, PATIENCE_S).is_inherited
    assert not answered(HostState.ready).report(1.0, PATIENCE_S).is_inherited


def test_link_that_is_dead_keeps_its_last_meters() -> None:
    meters: dict[str, Any] = {"busy_s": 7.5, "num_swaps": 2, "swap_s": 0.25}
    link = answered(HostState.draining, **meters)

    link.lose(5.0)
    link.is_dead = True

    assert link.report(6.0, PATIENCE_S) == HostReport(state=HostState.dead, pid=7, node="node", **meters)


def test_link_error_of_the_host_itself_outlives_it() -> None:
    link = answered(HostState.failed, error="ValueError: no such weights")
    link.lose(5.0, "the actor died")
    link.lose(6.0, "told twice")
    link.is_dead = True

    assert link.report(7.0, PATIENCE_S).error == "ValueError: no such weights"
    assert link.lost_at == 5.0


@pytest.mark.parametrize(
    ("state", "is_busy", "wait_s"),
    [(HostState.ready, False, 1.0), (HostState.ready, True, 0.1), (HostState.loading, False, 0.1)],
)
def test_link_asks_often_while_something_happens(state: HostState, is_busy: bool, wait_s: float) -> None:
    assert answered(state, at=10.0, is_busy=is_busy).next_call_at == 10.0 + wait_s
