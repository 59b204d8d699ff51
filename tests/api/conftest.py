"""The API over a real store: SQLite and Parquet under tmp_path, no cluster, a controller that only says it is alive."""

import dataclasses
import functools
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from starlette.testclient import TestClient

from api.app import create_app
from api.local.model_files import inspect_endpoint
from service.adapters import adapter_model
from service.config import Settings
from service.controller import Controller
from service.errors import InvalidInput
from service.flops import AttentionTerm, ForwardCost
from service.models import AdapterSource, EngineOptions, ModelSpec
from service.planner import Options
from service.problems import ProblemSource, register_problems
from service.sampling import ModelSampling
from service.status import ControllerStatus
from service.store import Store
from workers.hosts import MakeHost, make_host
from workers.local_cluster import LocalCluster
from workers.prepare import first_prompt

NUM_PROBLEMS = 6
ENDPOINTS = {"http://127.0.0.1:8000/v1/": "LAB_KEY", "https://open.example/v1": None}
CONTEXT_LEN = 256
COST = ForwardCost(
    body_flops_per_token=2e5,
    head_flops_per_token=1e4,
    attention=(AttentionTerm(flops_per_token_pair=100.0, window=None),),
    parameters=100_000,
    active_parameters=100_000,
    embedding_parameters=1_000,
)


def model_spec(
    name: str = "small", *, scale: float = 1.0, engine: EngineOptions | None = None, **changes: Any
) -> ModelSpec:
    cost = ForwardCost(
        body_flops_per_token=COST.body_flops_per_token * scale,
        head_flops_per_token=COST.head_flops_per_token * scale,
        attention=COST.attention,
        parameters=int(COST.parameters * scale),
        active_parameters=int(COST.active_parameters * scale),
        embedding_parameters=COST.embedding_parameters,
    )
    model = ModelSpec(
        name=name,
        path=f"/models/{name}",
        revision=f"sha256:{name}",
        context_len=CONTEXT_LEN,
        cost=cost,
        engine=engine or EngineOptions(),
    )
    return dataclasses.replace(model, **changes)


def status(**changes: object) -> ControllerStatus:
    values: dict[str, object] = {
        "last_tick_at": datetime.now(UTC),
        "tick_age_s": 0.1,
        "num_ticks": 3,
        "num_errors": 0,
        "cpu_s": 0.01,
        "is_draining": False,
        "cluster": "no cluster",
    }
    return ControllerStatus(**(values | changes))  # type: ignore[arg-type]


@dataclass
class World:
    """One service: its store, application and what it was asked to do."""

    root: Path
    settings: Settings
    store: Store
    app: FastAPI = field(init=False)
    status: ControllerStatus = field(default_factory=status)
    num_wakes: int = 0

    def wake(self) -> None:
        self.num_wakes += 1

    def client(self) -> TestClient:
        return TestClient(self.app, base_url="http://127.0.0.1:8265", raise_server_exceptions=False)


def _inspect(name: str, path: Path, engine: EngineOptions) -> ModelSpec:
    if not (path / "config.json").is_file():
        raise InvalidInput(f"path: {path} has no config.json; allowed: a model directory")
    generation = path / "generation_config.json"
    return ModelSpec(
        name=name,
        path=str(path),
        revision="sha256:inspected",
        context_len=CONTEXT_LEN,
        cost=COST,
        engine=engine,
        sampling=ModelSampling(**json.loads(generation.read_text())) if generation.is_file() else ModelSampling(),
    )


def _merge(name: str, path: Path, base: ModelSpec) -> ModelSpec:
    source = AdapterSource(path=str(path), revision="sha256:adapter", base=base.name)
    return adapter_model(base, name, path="/merged/1", revision=f"sha256:{base.name}+adapter", source=source)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database without rows; copying it takes a hundredth of the time of migrating another one."""
    path = tmp_path_factory.mktemp("database") / "isoflop.db"
    Store.open(f"sqlite:///{path}").close()
    return path


@pytest.fixture
def world(tmp_path: Path, empty_database: Path) -> Iterator[World]:
    made = make_world(tmp_path, empty_database)
    yield made
    made.store.close()


def make_world(tmp_path: Path, empty_database: Path) -> World:
    root = tmp_path / "files"
    root.mkdir()
    # the marker tells the simulated engine which answer is right
    lines = [
        json.dumps({"id": f"p{i}", "question": f"What is {i} + 1? [answer={i + 1}]", "answer": i + 1})
        for i in range(NUM_PROBLEMS)
    ]
    (root / "sums.jsonl").write_text("\n".join(lines))
    settings = Settings(data_dir=tmp_path / "data", roots=(root,), max_body_bytes=1 << 20, endpoints=ENDPOINTS)
    settings.data_dir.mkdir()
    shutil.copy(empty_database, settings.data_dir / "isoflop.db")
    store = Store.open(settings.url)
    store.catalogue.register_model(model_spec("small"))
    store.catalogue.register_model(model_spec("org/large", scale=3.0))
    store.catalogue.register_model(model_spec("simulated", engine=EngineOptions(simulated=True)))
    source = ProblemSource(path=str(root / "sums.jsonl"))
    store.catalogue.register_problems(register_problems(name="sums/train", source=source, data_dir=settings.data_dir))
    made = World(root=root, settings=settings, store=store)
    made.app = create_app(
        store=store,
        settings=settings,
        wake=made.wake,
        controller_status=lambda: made.status,
        inspect_model=_inspect,
        inspect_adapter=_merge,
        inspect_endpoint=functools.partial(inspect_endpoint, traces=Path("traces")),
        render_prompt=first_prompt,
    )
    return made


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[tuple[World, str]]:
    """A service whose one job has ended, drawn by simulated engines and scored for real. Tests only read it."""
    made = make_world(tmp_path_factory.mktemp("finished"), empty_database)
    document = {
        "problems": "sums/train",
        "models": ["simulated"],
        "budget": {"samples_per_problem": 4},
        "sampling": {"max_tokens": 40},
        "scorers": ["math_answer", "steps"],
    }
    with made.client() as client:
        job_id = client.post("/v1/jobs", json=document).json()["id"]
    work_off(made)
    yield made, job_id
    made.store.close()


@pytest.fixture
def run_jobs() -> Callable[..., None]:
    """Works off every job of a world, see `work_off`."""
    return work_off


def work_off(world: World, make_host: MakeHost = make_host) -> None:
    """Runs the control loop over threads until every job, selection and finetune has ended."""
    cluster = LocalCluster(make_host=make_host)
    options = Options(data_dir=str(world.settings.data_dir), flush_s=0.2)
    controller = Controller(store=world.store, cluster=cluster, options=options)
    pause = threading.Event()
    deadline = time.monotonic() + 60
    while (snapshot := world.store.snapshot()).jobs or snapshot.artifacts:
        controller.tick()
        assert time.monotonic() < deadline, [each.phase for each in (*snapshot.jobs, *snapshot.artifacts)]
        pause.wait(0.02)
    world.status = controller.status()
    cluster.close()


@pytest.fixture
def client(world: World) -> Iterator[TestClient]:
    with world.client() as opened:
        yield opened


@pytest.fixture
def job_document() -> Callable[..., dict[str, object]]:
    """A good document; keywords replace its fields."""

    def build(**changes: object) -> dict[str, object]:
        document: dict[str, object] = {
            "problems": "sums/train",
            "models": ["small"],
            "budget": {"samples_per_problem": 2},
        }
        return document | changes

    return build


@dataclass(frozen=True)
class Served:
    """A world that answers on a real socket."""

    world: World
    url: str


@contextmanager
def serving(world: World) -> Iterator[Served]:
    config = uvicorn.Config(world.app, host="127.0.0.1", port=0, log_level="warning", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    pause = threading.Event()
    while not server.started:
        assert thread.is_alive()
        pause.wait(0.01)
    try:
        yield Served(world=world, url=f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}")
    finally:
        server.should_exit = True
        thread.join(timeout=10)


@pytest.fixture
def served(world: World) -> Iterator[Served]:
    """The service of `world`, over HTTP."""
    with serving(world) as found:
        yield found


@pytest.fixture(scope="session")
def served_finished(finished: tuple[World, str]) -> Iterator[tuple[Served, str]]:
    """The service of `finished`, over HTTP. Tests only read it."""
    world, job_id = finished
    with serving(world) as found:
        yield found, job_id
