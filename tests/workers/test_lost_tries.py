"""Tries that a server may have charged for: an attempt pays for them, and shows them as waste."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import pytest

from service.cluster import AttemptState, Orders, Stop, StopMode
from service.currency import Currency
from service.endpoints import EndpointOptions
from tests.workers import fake_faulty_server as fake
from tests.workers.fake_faulty_server import FakeFaultyServer
from tests.workers.generator_rig import MODEL, Rig, planned, written
from workers.endpoint_engine import EndpointEngine
from workers.engine_protocol import EngineDead, Finished
from workers.simulated_engine import SimulatedEngine, SimulatedTokenizer

MAX_TOKENS = 40


class LosingSimulatedEngine(SimulatedEngine):
    """Says of every request that two tries of it were lost before."""

    def step(self) -> list[Finished]:
        return [finished._replace(lost_tries=2) for finished in super().step()]

    def abort(self, request_ids: Iterable[str]) -> list[Finished]:
        return [finished._replace(lost_tries=1) for finished in super().abort(request_ids)]


def losing_rig(directory: Path, currency: Currency) -> Rig:
    engine = LosingSimulatedEngine(model=MODEL, max_num_seqs=8, mean_tokens=20, tokens_per_step=4)
    rig = Rig(directory, engine=engine)
    rig.prepare()
    rig.begin(rig.spec([[1, 0, 5]], currency=currency), credit=1e15)
    return rig


@pytest.mark.parametrize("currency", [Currency.tokens, Currency.flops])
def test_finished_sample_pays_for_the_tries_before_it_at_their_worst(tmp_path: Path, currency: Currency) -> None:
    rig = losing_rig(tmp_path, currency)
    report = rig.run()

    usage = report.receipts[0].usage
    rows = {Currency.tokens: usage.prompt_tokens + usage.completion_tokens, Currency.flops: usage.flops}[currency]
    assert report.state is AttemptState.succeeded
    assert report.used == pytest.approx(rows + 10 * rig.worst(1, currency))
    assert (report.wasted.samples, report.wasted.completion_tokens) == (10, 10 * MAX_TOKENS)
    assert report.inflight_worst == 0
    assert sorted(written(report)) == planned([[1, 0, 5]])


def test_sample_of_an_endpoint_reserves_every_try_that_may_be_charged(tmp_path: Path) -> None:
    options = EndpointOptions(base_url="http://127.0.0.1:1/v1", model="there", max_lost_tries=3)
    rig = Rig(tmp_path)
    rig.prepare()
    spec = rig.spec([[1, 0, 5]], currency=Currency.usd)
    elsewhere = dataclasses.replace(spec.work.model, endpoint=options)  # type: ignore[union-attr]
    spec = dataclasses.replace(spec, work=dataclasses.replace(spec.work, model=elsewhere))  # type: ignore[type-var]
    worst = 3 * rig.worst(1, Currency.usd)
    rig.begin(spec, credit=2 * worst)

    rig.host.step_once()  # takes the job's limits
    rig.host.step_once()

    assert (rig.report().admitted, rig.report().inflight_worst, rig.report().next_worst) == (2, 2 * worst, worst)


def test_engine_that_is_lost_charges_what_it_says_of_each_request(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.prepare()
    rig.begin(rig.spec([[1, 0, 3]], currency=Currency.tokens), credit=1e15)
    rig.host.step_once()
    attempt = next(iter(rig.host._attempts))  # pyright: ignore[reportPrivateUsage]
    first, second, _ = attempt.in_flight

    rig.host.fail(EngineDead("the key is refused", charges={first: 2, second: 1}))

    assert attempt.used == 3 * rig.worst(1, Currency.tokens)
    assert attempt.wasted.samples == 3


def test_budget_in_samples_counts_rows_alone(tmp_path: Path) -> None:
    report = losing_rig(tmp_path, Currency.samples).run()

    assert (report.used, report.wasted.samples) == (5, 10)


def test_aborted_sample_pays_for_the_tries_before_it(tmp_path: Path) -> None:
    rig = losing_rig(tmp_path, Currency.tokens)
    rig.advance(1)
    rig.host.exchange(Orders(stops=(Stop(attempt_id="t.1", mode=StopMode.abort),)))
    report = rig.run()

    prompt_tokens = len(SimulatedTokenizer().encode(rig.prompts[1]))
    assert report.state is AttemptState.stopped
    assert report.wasted.samples == 10
    assert report.used == 5 * (prompt_tokens + 4) + 5 * (prompt_tokens + MAX_TOKENS)


def test_host_draws_from_a_server_that_fails_and_charges_what_was_lost(tmp_path: Path) -> None:
    with FakeFaultyServer([fake.hangs_up, fake.status(429, Retry_After="0"), fake.cuts_stream]).running() as server:
        options = EndpointOptions(base_url=server.url, model="there", max_lost_tries=3, backoff_s=0.001)
        engine = EndpointEngine(options, api_key=None, model=MODEL)
        rig = Rig(tmp_path, engine=engine)  # type: ignore[arg-type]
        rig.prepare()
        rig.begin(rig.spec([[1, 0, 6]], currency=Currency.tokens), credit=1e15)
        report = rig.run()
        engine.close()

    prompt_tokens = len(SimulatedTokenizer().encode(rig.prompts[1]))
    assert report.state is AttemptState.succeeded
    assert sorted(written(report)) == planned([[1, 0, 6]])
    assert report.wasted.samples == 2
    assert report.used == 6 * (prompt_tokens + fake.COMPLETION_TOKENS) + 2 * (prompt_tokens + MAX_TOKENS)
    assert len(server.documents) == 9
