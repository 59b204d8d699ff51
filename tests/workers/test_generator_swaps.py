"""One engine, several checkpoints: whose weights are loaded when, and what becomes of those that cannot be."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from service.cluster import AttemptReport, AttemptState, Grant, HostState, Orders, Stop, StopMode
from service.errors import InvalidInput
from service.models import ModelSpec
from service.sampling import SamplingSpec
from tests.workers.generate_attempts import COST
from tests.workers.generator_rig import MODEL, Clock, Rig, planned, returned, written
from workers.engine_protocol import EngineDead, Finished
from workers.simulated_engine import SimulatedEngine, SimulatedTokenizer


def checkpoint(name: str, **changes: object) -> ModelSpec:
    return dataclasses.replace(MODEL, name=name, revision=f"sha256:{name}", base=MODEL.name, **changes)  # type: ignore[arg-type]


FIRST, SECOND = checkpoint("first"), checkpoint("second")
OTHER_SHAPE = checkpoint("wide", path="/checkpoints/wide", cost=dataclasses.replace(COST, parameters=1))


class RecordingEngine(SimulatedEngine):
    """Writes down which model's weights each request met, and whose weights were loaded when."""

    def __init__(self, clock: Clock, *, swap_s: float = 0.0) -> None:
        def take(seconds: float) -> None:
            clock.now += seconds

        super().__init__(
            model=MODEL, max_num_seqs=8, mean_tokens=20, tokens_per_step=4, step_s=1.0, swap_s=swap_s, sleep=take
        )
        self.loaded: list[str] = []

    def load_weights(self, model: ModelSpec) -> None:
        super().load_weights(model)
        self.loaded.append(model.name)


def make_rig(directory: Path, *, swap_s: float = 0.0, broken: Sequence[int] = ()) -> tuple[Rig, RecordingEngine]:
    rig = Rig(directory)
    engine = rig.engine = RecordingEngine(rig.clock, swap_s=swap_s)
    rig.prepare(broken)
    return rig, engine


def finish(rig: Rig) -> dict[str, AttemptReport]:
    rig.advance()
    return {report.attempt_id: report for report in rig.host.exchange(Orders()).attempts}


def rows_of(report: AttemptReport) -> list[dict[str, object]]:
    return [row for receipt in report.receipts for row in pq.read_table(receipt.path).to_pylist()]


def drawn_alone(rig: Rig, model: ModelSpec, rows: Sequence[dict[str, object]]) -> list[str]:
    """The texts of these rows from an engine that never had any other weights."""
    engine = SimulatedEngine(model=model, mean_tokens=20)
    for number, row in enumerate(rows):
        tokens = SimulatedTokenizer().encode(rig.prompts[int(str(row["problem_index"]))])
        engine.add(str(number), tokens, max_tokens=40, sampling=SamplingSpec(), seed=int(str(row["seed"])))
    done: dict[str, Finished] = {}
    while engine.num_unfinished():
        done |= {finished.request_id: finished for finished in engine.step()}
    return [done[str(number)].text for number in range(len(rows))]


def test_attempts_of_two_checkpoints_are_each_drawn_from_their_own_weights(tmp_path: Path) -> None:
    rig, engine = make_rig(tmp_path)
    runs = [[0, 0, 20], [1, 0, 20]]
    models = {"a.1": FIRST, "b.1": SECOND, "c.1": FIRST, "d.1": MODEL}
    rig.begin(*(rig.spec(runs, name=name, model=model) for name, model in models.items()), credit=1e12)

    reports = finish(rig)

    for name, model in models.items():
        rows = rows_of(reports[name])
        assert reports[name].state is AttemptState.succeeded
        assert sorted(written(reports[name])) == planned(runs)
        assert {(row["model"], row["model_revision"]) for row in rows} == {(model.name, model.revision)}
        assert [row["completion"] for row in rows] == drawn_alone(rig, model, rows)
    assert engine.loaded == ["first", "second", "first", "sim"]


def test_weights_of_the_first_attempt_that_are_loaded_already_are_not_loaded_again(tmp_path: Path) -> None:
    rig, engine = make_rig(tmp_path)
    rig.begin(rig.spec([[0, 0, 4]]), rig.spec([[1, 0, 4]], name="t.2"), credit=1e12)

    finish(rig)

    assert engine.loaded == []
    assert rig.host.exchange(Orders()).num_swaps == 0


def test_attempt_of_the_loaded_weights_goes_first_while_a_swap_would_cost_more(tmp_path: Path) -> None:
    rig, engine = make_rig(tmp_path, swap_s=100.0)
    rig.begin(rig.spec([[0, 0, 4]], name="a.1", model=FIRST), credit=1e12)
    rig.advance()
    specs = (rig.spec([[0, 0, 4]], name="b.1", model=SECOND), rig.spec([[0, 0, 4]], name="a.2", model=FIRST))
    grants = tuple(Grant(attempt_id=spec.attempt_id, version=1, credit=1e12) for spec in specs)
    rig.host.exchange(Orders(submits=specs, grants=grants))
    rig.write()

    reports = finish(rig)

    assert engine.loaded == ["first", "second"]
    assert {report.state for report in reports.values()} == {AttemptState.succeeded}


def test_attempt_that_wants_other_weights_is_not_overtaken_for_ever(tmp_path: Path) -> None:
    rig, engine = make_rig(tmp_path, swap_s=1.0)
    rig.begin(rig.spec([[0, 0, 4]], name="a.1", model=FIRST), credit=1e12)
    rig.advance()
    # an engine that always has more of the loaded weights to do: 8 at once, 5 steps of a second each
    specs = (rig.spec([[0, 0, 4]], name="b.1", model=SECOND), rig.spec([[0, 0, 400]], name="a.2", model=FIRST))
    grants = tuple(Grant(attempt_id=spec.attempt_id, version=1, credit=1e12) for spec in specs)
    rig.host.exchange(Orders(submits=specs, grants=grants))
    rig.write()
    began = rig.clock.now

    while rig.report("b.1").finished < 4:
        rig.host.step_once()

    assert 20.0 <= rig.clock.now - began <= 20.0 + 1.0 + 4 * 10.0
    assert rig.report("a.2").finished < 400
    reports = finish(rig)
    assert engine.loaded == ["first", "second", "first"]
    assert sorted(written(reports["a.2"])) == planned([[0, 0, 400]])


def test_swap_waits_until_the_engine_is_empty(tmp_path: Path) -> None:
    rig, engine = make_rig(tmp_path)
    rig.begin(rig.spec([[0, 0, 4]]), rig.spec([[0, 0, 4]], name="b.1", model=FIRST), credit=1e12)
    rig.host.step_once()

    while engine.num_unfinished():
        assert engine.loaded == []
        rig.host.step_once()
    rig.host.step_once()

    assert engine.loaded == ["first"]


def test_swap_time_is_counted_apart_from_busy_time(tmp_path: Path) -> None:
    rig, _ = make_rig(tmp_path, swap_s=50.0)
    rig.begin(rig.spec([[0, 0, 4]], model=FIRST), credit=1e12)

    report = rig.run()

    host = rig.host.exchange(Orders())
    assert (host.num_swaps, host.swap_s) == (1, 50.0)
    assert host.busy_s == sum(receipt.usage.busy_s for receipt in report.receipts) < 50.0


def test_swap_that_takes_long_is_reported_as_loading(tmp_path: Path) -> None:
    seen = []

    def look(seconds: float) -> None:
        for _ in range(3):
            rig.clock.now += seconds
            report = rig.host.exchange(Orders())
            seen.append((report.state, report.load_s))

    rig = Rig(tmp_path, engine=SimulatedEngine(model=MODEL, swap_s=3.0, sleep=look))
    rig.prepare()
    rig.begin(rig.spec([[0, 0, 1]], model=FIRST), credit=1e12)
    rig.host.step_once()

    assert seen == [(HostState.ready, 0.0), (HostState.loading, 6.0), (HostState.loading, 9.0)]
    assert rig.host.exchange(Orders()).state is HostState.ready


def test_weights_that_cannot_be_loaded_fail_their_attempt_and_no_other(tmp_path: Path) -> None:
    rig, _ = make_rig(tmp_path, broken=[2])
    names = {"a.1": FIRST, "bad.1": OTHER_SHAPE, "b.1": SECOND, "a.2": FIRST}
    # the first sample of each is an error row, which needs no weights
    specs = [rig.spec([[2, 0, 1], [0, 0, 4]], name=name, model=model) for name, model in names.items()]
    rig.begin(*specs, credit=1e12)

    reports = finish(rig)

    bad = reports.pop("bad.1")
    assert (bad.state, bad.is_retriable, bad.used) == (AttemptState.failed, False, 0)
    assert "/checkpoints/wide: weights of another shape" in str(bad.error)
    assert written(bad) == [(2, 0)]
    assert {report.state for report in reports.values()} == {AttemptState.succeeded}
    for name, report in reports.items():
        rows = [row for row in rows_of(report) if row["error"] is None]
        assert [row["completion"] for row in rows] == drawn_alone(rig, names[name], rows)
    assert rig.host.state is HostState.ready


def test_attempt_stopped_while_it_waits_for_its_weights_returns_its_plan(tmp_path: Path) -> None:
    rig, engine = make_rig(tmp_path)
    rig.begin(rig.spec([[0, 0, 8]]), rig.spec([[1, 0, 3]], name="b.1", model=FIRST), credit=1e12)
    rig.host.step_once()

    rig.host.exchange(Orders(stops=(Stop(attempt_id="b.1", mode=StopMode.finish),)))
    reports = finish(rig)

    assert returned(reports["b.1"]) == planned([[1, 0, 3]])
    assert reports["t.1"].state is AttemptState.succeeded
    assert engine.loaded == []


def test_attempt_that_waits_for_credit_does_not_ask_for_its_weights(tmp_path: Path) -> None:
    rig, engine = make_rig(tmp_path)
    rig.begin(rig.spec([[0, 0, 3]], name="b.1", model=FIRST), rig.spec([[0, 0, 8]]))
    rig.host.exchange(Orders(grants=(Grant(attempt_id="t.1", version=1, credit=1e12),)))

    reports = finish(rig)

    assert reports["t.1"].state is AttemptState.succeeded
    assert reports["b.1"].next_worst == rig.worst(0)
    assert engine.loaded == []


def test_engine_that_dies_in_a_swap_ends_the_host_and_loses_nothing(tmp_path: Path) -> None:
    class FragileEngine(SimulatedEngine):
        def load_weights(self, model: ModelSpec) -> None:
            raise EngineDead(f"{model.name}: the old weights cannot be brought back")

    rig = Rig(tmp_path, engine=FragileEngine(model=MODEL, max_num_seqs=8))
    rig.prepare()
    rig.begin(rig.spec([[0, 0, 8]]), rig.spec([[1, 0, 3]], name="b.1", model=FIRST), credit=1e12)

    with pytest.raises(EngineDead) as death:
        rig.advance()
    rig.host.fail(death.value)
    rig.write()

    host = rig.host.exchange(Orders())
    first, second = host.attempts
    assert host.state is HostState.failed
    assert "first: the old weights cannot be brought back" in str(host.error)
    assert sorted(written(first)) == planned([[0, 0, 8]])
    assert (second.state, returned(second)) == (AttemptState.stopped, planned([[1, 0, 3]]))


def test_simulated_engine_with_requests_inside_refuses_to_swap() -> None:
    engine = SimulatedEngine(model=MODEL)
    engine.add("1", [1], max_tokens=5, sampling=SamplingSpec(), seed=0)

    with pytest.raises(ValueError, match="1 requests are inside"):
        engine.load_weights(FIRST)
    with pytest.raises(InvalidInput, match="another shape"):
        SimulatedEngine(model=MODEL).load_weights(OTHER_SHAPE)
