"""Jobs whose model is behind an endpoint, with real files on the local cluster; only the server is a fake."""

import math
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from service.currency import Budget, Currency
from service.endpoints import EndpointOptions, PromptForm
from service.forward_cost import UNKNOWN_COST
from service.jobs import Job, Phase
from service.models import ModelSpec
from service.pricing import Price
from service.verify import verify_directory
from service.work import TaskKind
from tests.e2e.builders import World
from tests.workers import fake_faulty_server as fake
from tests.workers.fake_faulty_server import FakeFaultyServer
from workers.local_cluster import LocalCluster

KEY = "key-of-the-test"
PRICE = Price(input_usd=1.0, output_usd=10.0)


def model_at(url: str, **options: object) -> ModelSpec:
    arguments: dict[str, object] = {"prompt_form": PromptForm.text, "backoff_s": 0.001, "api_key_env": "TEST_KEY"}
    endpoint = EndpointOptions(base_url=url, model="there", **(arguments | options))  # type: ignore[arg-type]
    return ModelSpec(
        name="api",
        path="",
        revision="endpoint:0",
        context_len=512,
        cost=UNKNOWN_COST,
        price=PRICE,
        endpoint=endpoint,
    )


@pytest.fixture
def server() -> Iterator[FakeFaultyServer]:
    with FakeFaultyServer([fake.status(429, Retry_After="0"), fake.hangs_up]).running() as server:
        server.says = "yes"
        yield server


def run(
    directory: Path, model: ModelSpec, *, budget: Budget, scorers: tuple[str, ...], key: str = KEY
) -> tuple[World, Job]:
    world = World(directory, num_problems=10, model=model)
    assert model.endpoint is not None
    cluster = LocalCluster(keys={model.endpoint.base_url: KEY})
    try:
        return world, world.run(world.controller(cluster), world.submit(budget=budget, scorers=scorers))
    finally:
        cluster.close()
        world.store.close()


def test_judge_behind_an_endpoint_answers_within_a_budget_in_usd(tmp_path: Path, server: FakeFaultyServer) -> None:
    limit = 20_000_000  # 0.02 USD
    world, job = run(
        tmp_path, model_at(server.url), budget=Budget(currency=Currency.usd, limit=limit), scorers=("yes_no",)
    )

    assert job.phase is Phase.succeeded, job.error
    account = world.store.reads.account(job.id)
    rows = [pq.read_table(part.path) for part in world.store.reads.parts(job.id, TaskKind.generate)]
    usage = world.store.reads.usage(job_id=job.id)
    report = verify_directory(world.job_dir(job))
    assert report.faults == ()
    assert math.isnan(report.recomputed_flops)
    assert 0 < account.spent <= limit
    assert account.reserved == 0
    samples = [row for table in rows for row in table.to_pylist()]
    assert {row["completion"] for row in samples} == {"yes"}
    assert all(math.isnan(row["flops"]) for row in samples)
    # as the server counted them, not the bytes that were reserved
    assert {row["prompt_tokens"] for row in samples} == {len(row["prompt"]) for row in samples}
    priced = [PRICE.nano_usd(prompt_tokens=r["prompt_tokens"], cached_tokens=0, completion_tokens=3) for r in samples]
    lost = sum(row.nano_usd for row in usage if row.outcome == "dropped")
    assert account.spent == sum(priced) + lost
    assert lost > 0  # the try that was hung up on
    assert {header["Authorization"] for header in server.headers} == {f"Bearer {KEY}"}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(
    ("models", "said"),
    [
        ((401, []), "the key is refused, it is from TEST_KEY"),
        ((200, ["other"]), "model 'there' is unknown there; it serves other"),
    ],
)
def test_job_of_an_endpoint_that_does_not_do_fails_in_one_sentence(
    tmp_path: Path, server: FakeFaultyServer, models: tuple[int, list[str]], said: str
) -> None:
    server.models = models

    _, job = run(
        tmp_path, model_at(server.url), budget=Budget(currency=Currency.tokens, limit=10_000), scorers=("yes_no",)
    )

    assert job.phase is Phase.failed
    assert job.error == f"engine for api does not load: EngineDead: {server.url}: {said}"
    assert server.documents == []
    assert KEY not in str(job.error)
