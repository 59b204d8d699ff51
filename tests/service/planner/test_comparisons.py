"""Comparisons on a real database: children are submitted, shared, paused and cancelled."""

import dataclasses
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import insert, select, update

from service.artifacts import Artifact
from service.cluster import NodeStatus, Observation
from service.currency import Currency
from service.experiments.graph import count_nodes
from service.experiments.nodes import Child
from service.experiments.spec import ComparisonWork, MatchBy
from service.jobs import Desired, Phase
from service.planner import Options, Plan, Seen, plan
from service.planner.comparisons import MAX_ACTIVE_CHILDREN
from service.planner.plan import Due
from service.pricing import Price
from service.sampling import ModelSampling
from service.store import Store, schema
from tests.databases import new_store
from tests.service.experiments.test_graph import LARGE, LARGE_ARM, SMALL, STAR, WORK, Graph, make_spec


class Desk:
    """A database and ticks of the planner, with no host that answers."""

    def __init__(self, store: Store) -> None:
        self.store, self.now = store, datetime(2026, 1, 1, tzinfo=UTC)
        self.last = Plan()

    def compare(
        self, *, price: Price | None = None, sampling: ModelSampling | None = None, **changes: object
    ) -> Artifact:
        sampling = sampling or ModelSampling()
        models = tuple(dataclasses.replace(model, price=price, sampling=sampling) for model in WORK.models)
        work = ComparisonWork(models=models, sets=WORK.sets)
        return self.store.artifacts.submit(make_spec(**changes), work, now=self.now)

    def tick(self) -> None:
        self.now += timedelta(seconds=1)
        decided = self.plan(self.last.due)
        assert decided == self.plan({}), "what is remembered changes nothing"
        self.last = decided
        self.store.commit(self.last, self.now)

    def plan(self, due: dict[str, Due]) -> Plan:
        seen = Seen(observation=Observation(hosts={}, nodes=(NodeStatus(id="n", num_cpus=2.0, num_gpus=0.0),)), due=due)
        options = Options(data_dir="data")
        return plan(snapshot=self.store.snapshot(), seen=seen, states={}, now=self.now, options=options)

    def desire(self, row_id: str, desired: Desired) -> None:
        store = self.store.jobs if row_id.startswith("job-") else self.store.artifacts
        store.set_desired(row_id, desired)

    def waits(self, comparison: Artifact) -> list[str]:
        events = self.store.reads.events(job_id=comparison.id)
        return [event.message for event in events if event.kind == "waiting"]

    def children(self, comparison: Artifact) -> dict[str, str]:
        children = schema.children
        with self.store.engine.connect() as connection:
            rows = connection.execute(select(children).where(children.c.comparison_id == comparison.id)).mappings()
            return {row["key"]: row["child_id"] for row in rows}

    def end(self, job_id: str, phase: Phase, *, nano_usd: float | None = None) -> None:
        """As if the job had run: of what its tasks would write, only what it usefully spent is of interest here."""
        counts = ("samples", "errors", "truncated", "prompt_tokens", "cached_tokens", "completion_tokens", "busy_s")
        used = {"flops": 3e9, "flops_paper": 2e9, "nano_usd": nano_usd} | dict.fromkeys(counts, 1)
        key = {"job_id": job_id, "model": "m", "stage": "generate", "outcome": "useful", "bucket": self.now}
        with self.store.engine.begin() as connection:
            values = {"phase": phase.value, "ended_at": self.now, "num_samples": 10, "num_correct": 5}
            connection.execute(update(schema.jobs).where(schema.jobs.c.id == job_id).values(**values))
            connection.execute(insert(schema.usage).values(**key, **used))

    def wanted(self, comparison: Artifact) -> set[str]:
        jobs = schema.jobs
        with self.store.engine.connect() as connection:
            query = select(jobs.c.desired).where(jobs.c.id.in_(list(self.children(comparison).values())))
            return set(connection.execute(query.where(jobs.c.ended_at.is_(None))).scalars())


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    store = new_store(tmp_path)
    store.take_over("test")
    store.catalogue.register_model(LARGE)
    store.catalogue.register_model(SMALL)
    yield Desk(store)
    store.close()


def test_comparison_submits_what_is_due_once(desk: Desk) -> None:
    comparison = desk.compare()
    desk.tick()
    first = desk.children(comparison)
    desk.tick()

    assert set(first) == {"draw/large@4", "greedy/base/small", "majority/base/small", "transfer/base/small"}
    assert desk.children(comparison) == first
    assert desk.store.artifacts.get(comparison.id).phase is Phase.running
    assert desk.store.jobs.get(first["greedy/base/small"]).spec.stage == "evaluate"


def test_comparison_goes_on_when_a_child_has_ended(desk: Desk) -> None:
    comparison = desk.compare()
    desk.tick()
    desk.end(desk.children(comparison)["draw/large@4"], Phase.succeeded)
    desk.tick()

    assert {"draw/small@4", "select/large@4"} <= set(desk.children(comparison))


def test_comparison_asked_again_takes_the_same_children(desk: Desk) -> None:
    first = desk.compare()
    desk.tick()
    again = desk.compare(name="the same under another name")
    desk.tick()

    assert desk.children(again) == desk.children(first)
    assert len(desk.store.jobs.list()) == 4


def test_comparison_after_a_change_of_price_draws_anew_and_takes_what_was_evaluated(desk: Desk) -> None:
    first = desk.compare()
    desk.tick()
    desk.end(desk.children(first)["draw/large@4"], Phase.succeeded)
    priced = [desk.compare(price=Price(input_usd=1.0, output_usd=2.0), match=MatchBy.usd, seeds=(s,)) for s in (0, 1)]
    desk.tick()

    draws, greedy = (
        [desk.children(one)[key] for one in (first, *priced)] for key in ("draw/large@4", "greedy/base/small")
    )
    assert draws[0] != draws[1] == draws[2]
    assert len(set(greedy)) == 1
    desk.end(draws[1], Phase.succeeded, nano_usd=1234.0)
    desk.tick()
    budget = desk.store.jobs.get(desk.children(priced[0])["draw/small@4"]).spec.budget
    assert (budget.currency, budget.limit) == (Currency.usd, 1234)


def test_comparison_after_models_were_read_again_takes_nothing_that_was_drawn_otherwise(desk: Desk) -> None:
    comparisons = [desk.compare(sampling=ModelSampling(top_k=top_k)) for top_k in (None, 20, 20)]
    desk.tick()

    children = [desk.children(one) for one in comparisons]
    assert not set(children[0].values()) & set(children[1].values())
    assert children[1] == children[2]


@pytest.mark.parametrize(("nano_usd", "got"), [(None, "an amount that cannot be told"), (0.0, "nothing")])
def test_comparison_that_nothing_can_be_matched_to_fails_alone(desk: Desk, nano_usd: float | None, got: str) -> None:
    failing, other = desk.compare(match=MatchBy.usd), desk.compare(match=MatchBy.number, seed=1)
    desk.tick()
    drawn = desk.children(failing)["draw/large@4"]
    desk.end(drawn, Phase.succeeded, nano_usd=nano_usd)
    desk.tick()
    for child in desk.children(failing).values():
        desk.end(child, Phase.cancelled) if child != drawn else None
    desk.tick()

    ended = desk.store.artifacts.get(failing.id)
    assert ended.phase is Phase.failed
    assert ended.error is not None
    assert f"{drawn} of the reference large usefully spent {got} in usd" in ended.error
    assert "draw/small@4" not in desk.children(failing)
    assert desk.store.artifacts.get(other.id).phase is Phase.running


def test_comparison_has_a_bounded_number_of_active_children(desk: Desk) -> None:
    comparison = desk.compare(budgets=tuple(range(1, 40)))
    for _ in range(3):
        desk.tick()

    assert len(desk.children(comparison)) == MAX_ACTIVE_CHILDREN


def test_comparison_with_a_failed_child_cancels_the_others_and_fails(desk: Desk) -> None:
    comparison = desk.compare()
    desk.tick()
    children = desk.children(comparison)
    lost = children.pop("draw/large@4")
    desk.end(lost, Phase.failed)
    desk.tick()
    assert desk.store.artifacts.get(comparison.id).phase is Phase.cancelling
    assert desk.wanted(comparison) == {"cancel"}
    for child in children.values():
        desk.end(child, Phase.cancelled)
    desk.tick()

    found = desk.store.artifacts.get(comparison.id)
    assert (found.phase, found.error) == (Phase.failed, f"draw/large@4: {lost} failed")


def test_comparison_submitted_after_a_failure_does_not_take_the_failed_child(desk: Desk) -> None:
    comparison = desk.compare()
    desk.tick()
    lost = desk.children(comparison)["draw/large@4"]
    desk.end(lost, Phase.failed)
    again = desk.compare()
    desk.tick()

    assert desk.children(again)["draw/large@4"] != lost


def test_comparison_paused_pauses_its_children_and_goes_on_with_them(desk: Desk) -> None:
    comparison = desk.compare()
    desk.tick()
    desk.store.artifacts.set_desired(comparison.id, Desired.pause)
    desk.tick()
    assert desk.wanted(comparison) == {"pause"}
    assert desk.store.artifacts.get(comparison.id).phase is Phase.paused

    desk.store.artifacts.set_desired(comparison.id, Desired.run)
    desk.tick()
    assert desk.wanted(comparison) == {"run"}
    assert desk.store.artifacts.get(comparison.id).phase is Phase.running


def test_comparison_cancelled_leaves_children_that_another_needs(desk: Desk) -> None:
    comparison, other = desk.compare(), desk.compare(name="other")
    desk.tick()
    desk.store.artifacts.set_desired(comparison.id, Desired.cancel)
    desk.tick()

    assert desk.wanted(other) == {"run"}
    assert desk.store.artifacts.get(comparison.id).phase is Phase.cancelled


def test_comparison_goes_on_with_children_that_another_has_paused(desk: Desk) -> None:
    paused = desk.compare()
    desk.tick()
    desk.store.artifacts.set_desired(paused.id, Desired.pause)
    desk.tick()
    other = desk.compare(name="other")
    desk.tick()
    assert desk.children(other) == desk.children(paused)
    desk.tick()

    assert desk.wanted(other) == {"run"}
    assert desk.store.artifacts.get(paused.id).phase is Phase.paused
    desk.tick()
    assert desk.wanted(other) == {"run"}


def test_comparisons_cancelled_together_leave_nothing_running(desk: Desk) -> None:
    comparisons = [desk.compare(), desk.compare(name="other")]
    desk.tick()
    for comparison in comparisons:
        desk.store.artifacts.set_desired(comparison.id, Desired.cancel)
    desk.tick()

    assert desk.wanted(comparisons[0]) == {"cancel"}
    for child in desk.children(comparisons[0]).values():
        desk.end(child, Phase.cancelled)
    desk.tick()
    assert {desk.store.artifacts.get(comparison.id).phase for comparison in comparisons} == {Phase.cancelled}


def test_comparisons_that_lose_the_same_child_leave_nothing_running(desk: Desk) -> None:
    comparisons = [desk.compare(), desk.compare(name="other")]
    desk.tick()
    desk.end(desk.children(comparisons[0])["draw/large@4"], Phase.failed)
    desk.tick()
    desk.tick()

    assert desk.wanted(comparisons[0]) == {"cancel"}
    assert {desk.store.artifacts.get(comparison.id).phase for comparison in comparisons} == {Phase.cancelling}


def test_child_paused_by_itself_stays_paused_and_its_comparison_says_once_that_it_waits(desk: Desk) -> None:
    comparison = desk.compare()
    desk.tick()
    child = desk.children(comparison)["draw/large@4"]
    desk.desire(child, Desired.pause)
    for _ in range(3):
        desk.tick()

    assert desk.store.jobs.get(child).desired is Desired.pause
    assert desk.waits(comparison) == [f"{child} is paused; resume it to go on"]
    assert desk.store.artifacts.get(comparison.id).phase is Phase.running


def test_comparison_resumed_has_children_go_on_that_were_paused_by_themselves(desk: Desk) -> None:
    comparison = desk.compare()
    desk.tick()
    desk.desire(desk.children(comparison)["draw/large@4"], Desired.pause)
    desk.tick()
    for desired in (Desired.pause, Desired.run):
        desk.desire(comparison.id, desired)
        desk.tick()

    assert desk.wanted(comparison) == {"run"}


def test_child_resumed_under_a_paused_comparison_is_paused_again(desk: Desk) -> None:
    comparison = desk.compare()
    desk.tick()
    desk.desire(comparison.id, Desired.pause)
    desk.tick()
    desk.desire(desk.children(comparison)["draw/large@4"], Desired.run)
    desk.tick()

    assert desk.wanted(comparison) == {"pause"}


def test_comparison_that_comes_to_need_a_job_paused_by_itself_waits_for_it(desk: Desk) -> None:
    comparison = desk.compare()
    desk.tick()
    child = desk.children(comparison)["draw/large@4"]
    desk.desire(child, Desired.pause)
    other = desk.compare(name="other")
    for _ in range(3):
        desk.tick()

    assert desk.children(other)["draw/large@4"] == child
    assert desk.store.jobs.get(child).desired is Desired.pause
    assert desk.waits(other) == [f"{child} is paused; resume it to go on"]


def test_comparisons_paused_one_after_the_other_pause_what_they_share(desk: Desk) -> None:
    comparisons = [desk.compare(), desk.compare(name="other")]
    desk.tick()
    desk.tick()
    desk.desire(comparisons[0].id, Desired.pause)
    desk.tick()
    assert desk.wanted(comparisons[0]) == {"run"}
    desk.desire(comparisons[1].id, Desired.pause)
    desk.tick()
    assert desk.wanted(comparisons[0]) == {"pause"}

    desk.desire(comparisons[0].id, Desired.run)
    desk.tick()
    desk.tick()
    assert desk.wanted(comparisons[0]) == {"run"}


def test_comparison_cancelled_leaves_children_paused_that_a_paused_one_needs(desk: Desk) -> None:
    cancelled, paused = desk.compare(), desk.compare(name="other")
    desk.tick()
    desk.desire(paused.id, Desired.pause)
    desk.tick()
    assert desk.wanted(paused) == {"run"}
    desk.desire(cancelled.id, Desired.cancel)
    desk.tick()
    desk.tick()

    assert desk.wanted(paused) == {"pause"}


def test_only_the_end_of_a_child_makes_more_nodes_due() -> None:
    graph, rng = Graph(make_spec(arms=(LARGE_ARM, STAR))), random.Random(0)
    waiting: list[str] = []
    while (keys := graph.due()) or waiting:
        for key in keys:
            graph.children[key] = Child(id=key, phase=Phase.running)
        assert graph.due() == []
        waiting += keys
        key = waiting.pop(rng.randrange(len(waiting)))
        graph.succeed(key, **({"useful_flops": 3e9} if key.startswith("draw/") else {}))

    assert len(graph.children) == count_nodes(graph.spec)
