"""GeneratorHost against the simulated engine, driven step by step on one thread with a clock of its own."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.cluster import Acknowledge, AttemptReport, AttemptState, Grant, HostState, Orders, Stop, StopMode
from service.currency import Currency, actual, in_currency
from service.receipts import Usage
from service.records import SAMPLE_SCHEMA
from service.shards import find_receipts, part_path
from tests.workers.generator_rig import ERROR, MODEL, Rig, planned, returned, written
from workers.engine_protocol import EngineDead, Finished
from workers.generator import GeneratorHost
from workers.simulated_engine import SimulatedEngine


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    rig = Rig(tmp_path)
    rig.prepare()
    return rig


def test_attempt_with_enough_credit_writes_every_planned_sample_once(rig: Rig) -> None:
    runs = [[0, 0, 3], [2, 5, 1], [1, 0, 20], [0, 3, 2]]
    rig.begin(rig.spec(runs), credit=1e12)

    report = rig.run()

    assert report.state is AttemptState.succeeded
    assert sorted(written(report)) == sorted(planned(runs))
    assert report.admitted == report.finished == 26
    assert report.inflight_worst == 0


def test_rows_match_schema_and_price_of_their_tokens(rig: Rig) -> None:
    rig.begin(rig.spec([[0, 0, 4], [3, 0, 4]]), credit=1e12)

    report = rig.run()

    table = pq.read_table(report.receipts[0].path)
    assert table.schema.remove_metadata().equals(SAMPLE_SCHEMA)
    rows = table.to_pylist()
    assert sum(row["flops"] for row in rows) == report.receipts[0].usage.flops == report.used
    for row in rows:
        assert row["flops"] == actual(
            Currency.flops,
            MODEL.pricing,
            prompt_tokens=row["prompt_tokens"],
            cached_tokens=row["cached_tokens"],
            completion_tokens=row["completion_tokens"],
        )
        assert row["prompt"] == rig.prompts[row["problem_index"]]
        assert row["engine_version"] == "simulated-1"
    assert len({row["sample_id"] for row in rows}) == 8
    assert len({row["seed"] for row in rows}) == 8


def test_rows_of_a_second_attempt_have_the_same_ids_seeds_and_text(rig: Rig) -> None:
    runs = [[1, 0, 5]]
    rig.begin(rig.spec(runs), rig.spec(runs, name="t.2"), credit=1e12)
    rig.run()

    columns = ["sample_id", "seed", "completion"]
    first, second = (
        pq.read_table(rig.report(name).receipts[0].path).sort_by("sample_index").select(columns)
        for name in ("t.1", "t.2")
    )
    assert first.replace_schema_metadata().equals(second.replace_schema_metadata())


@pytest.mark.parametrize("currency", list(Currency))
def test_admission_without_room_for_another_worst_case_waits(rig: Rig, currency: Currency) -> None:
    worst = rig.worst(0, currency)
    rig.begin(rig.spec([[0, 0, 10]], currency=currency), credit=2 * worst)

    rig.host.step_once()
    report = rig.report()

    assert report.admitted == 2
    assert report.inflight_worst == 2 * worst
    assert report.next_worst == worst


def test_sample_that_does_not_fit_is_never_skipped_for_a_cheaper_one(rig: Rig) -> None:
    rig.begin(rig.spec([[5, 0, 1], [0, 0, 1]]), credit=(rig.worst(5) + rig.worst(0)) / 2)

    report = rig.run(20)

    assert report.admitted == 0
    assert report.next_worst == rig.worst(5)


def test_second_attempt_moves_on_while_the_first_waits_for_credit(rig: Rig) -> None:
    first, second = rig.spec([[0, 0, 3]]), rig.spec([[1, 0, 3]], name="t.2")
    rig.begin(first, second)
    rig.host.exchange(Orders(grants=(Grant(attempt_id="t.2", version=1, credit=1e12),)))

    rig.run()

    assert rig.report("t.1").admitted == 0
    assert rig.report("t.2").state is AttemptState.succeeded


def test_first_attempt_with_credit_is_served_before_the_second(rig: Rig) -> None:
    rig.begin(rig.spec([[0, 0, 50]]), rig.spec([[1, 0, 50]], name="t.2"), credit=1e12)

    rig.host.step_once()

    assert rig.report("t.1").admitted == 10
    assert rig.report("t.2").admitted == 0


def test_lower_grant_keeps_what_is_spent_and_in_flight(rig: Rig) -> None:
    rig.begin(rig.spec([[0, 0, 10]]), credit=1e12)
    rig.host.step_once()
    before = rig.report()

    rig.host.exchange(Orders(grants=(Grant(attempt_id="t.1", version=2, credit=0.0),)))
    after = rig.report()

    assert after.grant_version == 2
    assert after.credit_held == before.used + before.inflight_worst


def test_older_grant_is_ignored(rig: Rig) -> None:
    rig.begin(rig.spec([[0, 0, 10]]))
    rig.host.exchange(Orders(grants=(Grant(attempt_id="t.1", version=3, credit=5.0),)))

    rig.host.exchange(Orders(grants=(Grant(attempt_id="t.1", version=3, credit=9.0, is_final=True),)))

    assert (rig.report().credit_held, rig.report().grant_version) == (5.0, 3)


def test_final_grant_stops_at_the_first_sample_that_does_not_fit(rig: Rig) -> None:
    runs = [[0, 0, 2], [5, 0, 1], [0, 2, 4]]
    rig.begin(rig.spec(runs), credit=2.5 * rig.worst(0), is_final=True)

    report = rig.run()

    assert report.state is AttemptState.stopped
    assert report.used <= report.credit_held
    assert report.used + report.next_worst <= 1e12
    assert written(report) + returned(report) == planned(runs)
    assert report.used + rig.worst(returned(report)[0][0]) > 2.5 * rig.worst(0)


def test_final_grant_that_covers_everything_succeeds(rig: Rig) -> None:
    rig.begin(rig.spec([[0, 0, 4]]), credit=4 * rig.worst(0), is_final=True)

    report = rig.run()

    assert report.state is AttemptState.succeeded
    assert report.returned is None


@pytest.mark.parametrize("mode", list(StopMode))
def test_stop_writes_what_is_done_and_returns_the_rest(rig: Rig, mode: StopMode) -> None:
    runs = [[0, 0, 30], [1, 0, 30]]
    rig.begin(rig.spec(runs), credit=1e12)
    for _ in range(4):
        rig.host.step_once()
    before = rig.report()

    rig.host.exchange(Orders(stops=(Stop(attempt_id="t.1", mode=mode),)))
    report = rig.run()

    assert report.state is AttemptState.stopped
    assert sorted(written(report) + returned(report)) == sorted(planned(runs))
    assert report.inflight_worst == 0
    if mode is StopMode.finish:
        assert len(written(report)) == before.admitted
        assert report.wasted == Usage()
    else:
        assert len(written(report)) == before.finished
        assert report.wasted.completion_tokens > 0
        assert report.wasted.flops > 0
        assert report.used == before.used + report.wasted.flops


def test_stop_before_the_first_grant_returns_the_whole_plan(rig: Rig) -> None:
    rig.begin(rig.spec([[0, 0, 3], [2, 1, 2]]))

    rig.host.exchange(Orders(stops=(Stop(attempt_id="t.1", mode=StopMode.finish),)))
    report = rig.run()

    assert report.state is AttemptState.stopped
    assert returned(report) == planned([[0, 0, 3], [2, 1, 2]])


def test_broken_prompt_becomes_error_rows_without_credit(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.prepare(broken=[1])
    rig.begin(rig.spec([[1, 0, 2], [0, 0, 1], [1, 2, 1]]), credit=rig.worst(0))

    report = rig.run()

    rows = pq.read_table(report.receipts[0].path).to_pylist()
    failed = [row for row in rows if row["problem_index"] == 1]
    assert report.state is AttemptState.succeeded
    assert [(row["finish_reason"], row["error"], row["flops"]) for row in failed] == [("error", ERROR, 0.0)] * 3
    assert (report.receipts[0].usage.samples, report.receipts[0].usage.errors) == (4, 3)
    assert report.used == report.receipts[0].usage.flops


class RejectingEngine(SimulatedEngine):
    """Gives up on every request after some tokens, as an engine does with a prompt it finds invalid after 0 tokens."""

    tokens = 0

    def step(self) -> list[Finished]:
        return [
            finished._replace(completion_tokens=self.tokens, finish_reason="error", error="refused")
            for finished in super().step()
        ]


@pytest.mark.parametrize("tokens", [0, 3])
def test_request_the_engine_gives_up_on_becomes_an_error_row_and_its_tokens_waste(tmp_path: Path, tokens: int) -> None:
    engine = RejectingEngine(model=MODEL, answer_accuracy=1.0)
    engine.tokens = tokens
    rig = Rig(tmp_path, engine=engine)
    rig.prepare()
    rig.begin(rig.spec([[3, 0, 2]]), credit=1e12)

    report = rig.run()

    rows = pq.read_table(report.receipts[0].path).to_pylist()
    assert report.state is AttemptState.succeeded
    assert [(row["error"], row["completion"], row["completion_tokens"], row["flops"]) for row in rows] == [
        ("refused", "", 0, 0.0)
    ] * 2
    assert report.wasted.completion_tokens == 2 * tokens
    assert report.used == report.wasted.flops
    assert (report.used > 0) == (tokens > 0)


def test_parts_are_flushed_by_rows(rig: Rig) -> None:
    rig.begin(rig.spec([[0, 0, 40]], flush_rows=10), credit=1e12)

    report = rig.run()

    assert len(report.receipts) >= 3
    assert [receipt.part for receipt in report.receipts] == list(range(len(report.receipts)))
    assert all(receipt.rows >= 10 for receipt in report.receipts[:-1])
    assert [r.sha256 for r in find_receipts(rig.directory / "t.1")] == [r.sha256 for r in report.receipts]


def test_parts_are_flushed_by_time_while_credit_is_awaited(rig: Rig) -> None:
    rig.begin(rig.spec([[0, 0, 40]], flush_s=30.0), credit=3 * rig.worst(0))
    assert rig.run().receipts == ()

    rig.clock.now = 31.0
    report = rig.run()

    assert report.state is AttemptState.running
    assert sum(receipt.rows for receipt in report.receipts) == report.finished > 0


def test_storage_that_falls_behind_holds_up_admission(rig: Rig) -> None:
    rig.begin(rig.spec([[0, 0, 500]], flush_rows=1), credit=1e12)
    while rig.host.step_once():
        pass
    assert rig.report().admitted < 100

    report = rig.run()

    assert sorted(written(report)) == planned([[0, 0, 500]])


def test_receipts_are_reported_until_acknowledged(rig: Rig) -> None:
    rig.begin(rig.spec([[0, 0, 40]], flush_rows=10), credit=1e12)
    rig.run()
    assert [r.part for r in rig.report().receipts] == [r.part for r in rig.report().receipts]

    rig.host.exchange(Orders(acknowledges=(Acknowledge(attempt_id="t.1", num_parts=2),)))

    assert rig.report().receipts[0].part == 2


def test_forgotten_attempt_is_dropped_and_not_begun_again(rig: Rig) -> None:
    spec = rig.spec([[0, 0, 4]])
    rig.begin(spec, credit=1e12)
    rig.run()
    rig.host.exchange(Orders(acknowledges=(Acknowledge(attempt_id="t.1", num_parts=1, is_forgotten=True),)))

    assert rig.host.exchange(Orders(submits=(spec,))).attempts == ()


def test_attempt_forgotten_while_it_runs_leaves_the_engine(rig: Rig) -> None:
    rig.begin(rig.spec([[0, 0, 40]]), credit=1e12)
    rig.host.step_once()

    rig.host.exchange(Orders(acknowledges=(Acknowledge(attempt_id="t.1", num_parts=0, is_forgotten=True),)))
    rig.host.step_once()
    rig.write()

    assert rig.host.exchange(Orders()).attempts == ()
    assert rig.engine.num_unfinished() == 0


def test_submit_of_a_known_attempt_changes_nothing(rig: Rig) -> None:
    spec = rig.spec([[0, 0, 12]])
    rig.begin(spec, credit=1e12)
    rig.host.step_once()

    rig.host.exchange(Orders(submits=(spec,)))
    report = rig.run()

    assert sorted(written(report)) == planned([[0, 0, 12]])


def test_wanted_is_what_keeps_the_window_full(rig: Rig) -> None:
    rig.begin(rig.spec([[0, 0, 4], [1, 0, 100]]))

    report = rig.report()

    # 8 slots and a quarter more
    assert report.wanted == 4 * rig.worst(0) + 6 * rig.worst(1)


def test_wanted_goes_to_the_second_attempt_where_the_first_ends(rig: Rig) -> None:
    rig.begin(rig.spec([[0, 0, 4]]), rig.spec([[1, 0, 100]], name="t.2"))

    assert rig.report("t.1").wanted == 4 * rig.worst(0)
    assert rig.report("t.2").wanted == 6 * rig.worst(1)


def test_missing_prompts_fail_the_attempt_and_name_the_file(rig: Rig) -> None:
    rig.begin(rig.spec([[0, 0, 1]], prepared_path=str(rig.directory / "gone.parquet")), credit=1e12)

    report = rig.run()

    assert report.state is AttemptState.failed
    assert "gone.parquet" in str(report.error)


def test_plan_beyond_the_prompts_fails_the_attempt(rig: Rig) -> None:
    rig.begin(rig.spec([[6, 0, 1]]), credit=1e12)

    report = rig.run()

    assert (report.state, report.is_retriable) == (AttemptState.failed, False)


def test_part_that_cannot_be_written_fails_the_attempt_and_only_it(rig: Rig) -> None:
    rig.begin(rig.spec([[0, 0, 40]], flush_rows=10), rig.spec([[1, 0, 4]], name="t.2"), credit=1e12)
    part_path(rig.directory / "t.1", 1).mkdir(parents=True)

    rig.run()
    rig.run()

    report = rig.report("t.1")
    assert report.state is AttemptState.failed
    assert [receipt.part for receipt in report.receipts] == [0]
    assert report.inflight_worst == 0
    # every row that was drawn and is in no file is waste
    assert report.wasted.samples >= report.finished - report.receipts[0].rows > 0
    assert report.used == report.receipts[0].usage.flops + report.wasted.flops
    assert rig.report("t.2").state is AttemptState.succeeded


def test_part_that_cannot_be_written_costs_a_budget_in_samples_nothing(rig: Rig) -> None:
    rig.begin(rig.spec([[0, 0, 40]], flush_rows=10, currency=Currency.samples), credit=40)
    part_path(rig.directory / "t.1", 1).mkdir(parents=True)

    report = rig.run()

    assert report.state is AttemptState.failed
    assert report.used == report.receipts[0].rows
    assert report.wasted.samples > 0


def test_dead_engine_saves_what_is_done_and_names_what_was_in_flight(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.prompts[5] = "never mind [poison]"
    rig.prepare()
    runs = [[0, 0, 30], [5, 0, 1], [1, 0, 30]]
    rig.begin(rig.spec(runs), rig.spec([[2, 0, 2]], name="t.2"), credit=1e12)

    with pytest.raises(EngineDead) as death:
        rig.run()
    rig.host.fail(death.value)
    # not before everything is written, and until then no attempt has failed: it would pass for its own fault
    before = rig.host.exchange(Orders())
    assert before.state is not HostState.failed
    assert {attempt.state for attempt in before.attempts} == {AttemptState.running}
    rig.write()

    host = rig.host.exchange(Orders())
    first, second = host.attempts
    assert host.state is HostState.failed
    assert "t.1" in str(host.error)
    assert "[poison]" in str(host.error)
    assert first.state is AttemptState.failed
    assert "problems 0, 1, 5" in str(first.error) or "problems 0, 5" in str(first.error)
    assert len(written(first)) == first.finished
    assert first.inflight_worst == 0
    assert first.used == sum(receipt.usage.flops for receipt in first.receipts) + first.wasted.flops
    assert first.wasted.flops >= rig.worst(5)
    assert (second.state, returned(second)) == (AttemptState.stopped, [(2, 0), (2, 1)])


def test_drain_finishes_what_runs_returns_the_rest_and_refuses_more(rig: Rig) -> None:
    runs = [[0, 0, 30]]
    rig.begin(rig.spec(runs), credit=1e12)
    rig.host.step_once()

    rig.host.drain()
    rig.host.exchange(Orders(submits=(rig.spec([[1, 0, 3]], name="late.1"),)))
    report = rig.run()

    assert rig.host.state is HostState.draining
    assert rig.host.is_drained
    assert len(written(report)) == 10
    assert written(report) != []
    assert sorted(written(report) + returned(report)) == planned(runs)
    assert returned(rig.report("late.1")) == planned([[1, 0, 3]])


def test_total_tokens_grow_while_nothing_has_finished(tmp_path: Path) -> None:
    rig = Rig(tmp_path, engine=SimulatedEngine(model=MODEL, max_num_seqs=8, mean_tokens=2_000, tokens_per_step=1))
    rig.prepare()
    rig.begin(rig.spec([[0, 0, 4]]), credit=1e12)

    seen = []
    for second in range(4):
        rig.clock.now = float(second)
        rig.host.step_once()
        seen.append(rig.host.exchange(Orders()).total_tokens)

    assert seen == sorted(set(seen))
    assert rig.report().finished == 0


def test_host_with_threads_finishes_and_closes(rig: Rig) -> None:
    rig.host.start()
    rig.host.exchange(
        Orders(
            submits=(rig.spec([[0, 0, 5], [1, 0, 5]]),),
            grants=(Grant(attempt_id="t.1", version=1, credit=1e12),),
        )
    )
    deadline = 5_000_000
    while rig.report().state is AttemptState.running and deadline:
        deadline -= 1

    rig.host.close()

    assert sorted(written(rig.report())) == planned([[0, 0, 5], [1, 0, 5]])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_engine_that_does_not_load_fails_the_host_with_its_reason(tmp_path: Path) -> None:
    def load() -> SimulatedEngine:
        raise FileNotFoundError("model.safetensors is missing")

    host = GeneratorHost(engine_factory=load)
    host.start()
    host.close()

    assert host.state is HostState.failed
    assert "model.safetensors is missing" in str(host.exchange(Orders()).error)


def test_load_time_of_a_loading_host_is_what_it_has_taken_so_far(rig: Rig) -> None:
    seen = []

    def load() -> SimulatedEngine:
        rig.clock.now += 40.0
        seen.append(host.exchange(Orders()))
        rig.clock.now += 2.0
        return rig.engine

    host = GeneratorHost(engine_factory=load, clock=rig.clock)
    host.load()

    assert (seen[0].state, seen[0].load_s) == (HostState.loading, 40.0)
    assert (host.exchange(Orders()).state, host.exchange(Orders()).load_s) == (HostState.ready, 42.0)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_writer_that_breaks_fails_the_host_with_its_reason(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(path: str) -> None:
        raise MemoryError(path)

    monkeypatch.setattr("workers.part_writer.read_prepared", no_memory)
    rig.host.start()
    rig.host.exchange(Orders(submits=(rig.spec([[0, 0, 5]]),)))
    rig.host.close()

    assert rig.host.state is HostState.failed
    assert "writer ended: MemoryError" in str(rig.host.exchange(Orders()).error)


@given(data=st.data())
def test_any_schedule_of_orders_keeps_the_credit_and_loses_nothing(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rig = Rig(tmp_path_factory.mktemp("rig"))
    rig.prepare(broken=[2])
    currency = data.draw(st.sampled_from(list(Currency)))
    runs, drawn = [], dict.fromkeys(range(6), 0)
    for problem, num in data.draw(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5)), max_size=8)):
        runs.append([problem, drawn[problem], num])
        drawn[problem] += num
    rig.begin(rig.spec(runs, currency=currency, flush_rows=data.draw(st.integers(1, 12))))
    unit, version, highest, num_acknowledged = rig.worst(5, currency), 0, 0.0, 0
    receipts = {}

    def check(report: AttemptReport) -> None:
        assert report.used + report.inflight_worst <= report.credit_held <= highest
        receipts.update({receipt.part: receipt for receipt in report.receipts})

    for _ in range(data.draw(st.integers(0, 25))):
        match data.draw(st.sampled_from(["step", "step", "step", "grant", "write", "acknowledge", "stop"])):
            case "step":
                rig.host.step_once()
            case "write":
                rig.host.write_once()
            case "grant":
                version += 1
                credit = unit * data.draw(st.floats(0, 12))
                highest = max(highest, credit)
                rig.host.exchange(Orders(grants=(Grant(attempt_id="t.1", version=version, credit=credit),)))
            case "acknowledge":
                num_acknowledged = data.draw(st.integers(num_acknowledged, max(receipts, default=-1) + 1))
                order = Acknowledge(attempt_id="t.1", num_parts=num_acknowledged)
                rig.host.exchange(Orders(acknowledges=(order,)))
            case "stop":
                if data.draw(st.integers(0, 9)) == 0:
                    mode = data.draw(st.sampled_from(list(StopMode)))
                    rig.host.exchange(Orders(stops=(Stop(attempt_id="t.1", mode=mode),)))
        check(rig.report())
    final = Grant(attempt_id="t.1", version=version + 1, credit=highest, is_final=True)
    rig.host.exchange(Orders(grants=(final,)))
    report = rig.run()
    check(report)

    assert report.state in (AttemptState.succeeded, AttemptState.stopped)
    pairs = [tuple(pair) for part in sorted(receipts) for pair in receipts[part].indices.tolist()]
    assert sorted(pairs + returned(report)) == sorted(planned(runs))
    used = {
        Currency.flops: sum(r.usage.flops for r in receipts.values()),
        Currency.flops_paper: sum(r.usage.flops_paper for r in receipts.values()),
        Currency.tokens: sum(r.usage.prompt_tokens + r.usage.completion_tokens for r in receipts.values()),
        Currency.samples: sum(r.usage.samples - r.usage.errors for r in receipts.values()),
        Currency.usd: sum(r.usage.nano_usd for r in receipts.values()),
        Currency.gpu_hours: sum(in_currency(Currency.gpu_hours, r.usage) for r in receipts.values()),
    }
    wasted = {
        Currency.flops: report.wasted.flops,
        Currency.flops_paper: report.wasted.flops_paper,
        Currency.tokens: report.wasted.prompt_tokens + report.wasted.completion_tokens,
        Currency.samples: 0,
        Currency.usd: report.wasted.nano_usd,
        Currency.gpu_hours: in_currency(Currency.gpu_hours, report.wasted),
    }
    assert used[currency] + wasted[currency] == report.used
