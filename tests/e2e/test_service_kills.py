"""kill -9 of every kind of process of the running service, on real Ray with the simulated engine.

The real engine goes through the same in `test_service_tiny_world`; here loading takes no time, so more can die.
"""

import random
from collections.abc import Iterator

import pytest

from tests.e2e.random_kills import Victim, faults, kill, kill_until_ended, submit_random
from tests.e2e.service_process import ServiceProcess, until

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    service = ServiceProcess(tmp_path_factory.mktemp("kills"))
    yield service
    service.close()


@pytest.fixture
def service(shared: ServiceProcess) -> ServiceProcess:
    shared.ensure_running()
    shared.register_simulated()
    return shared


def submit(service: ServiceProcess, flops: float) -> str:
    return service.submit(
        models=["simulated"],
        problems="marked",
        budget={"flops": flops},
        sampling={"temperature": 0.8, "max_tokens": 64},
        scorers=["math_answer", "steps"],
    )


def test_dispatcher_killed_while_it_scores_scores_every_sample_once(service: ServiceProcess) -> None:
    job_id = submit(service, 3e12)
    service.wait_parts(job_id, 2)
    until(lambda: kill(service, Victim.dispatcher), "a dispatcher to kill", 20.0)
    service.wait_ended(job_id)
    assert faults(service, job_id) == []
    assert set(service.usage(job_id)) <= {"useful", "truncated"}


@pytest.mark.chaos
@pytest.mark.parametrize("seed", [1, 2])
def test_seeded_kills_of_everything_lose_and_double_nothing(service: ServiceProcess, seed: int) -> None:
    rng = random.Random(seed)
    job_id = submit_random(service, rng)
    killed = kill_until_ended(service, job_id, rng, pause_s=(0.2, 3.0), patience_s=240.0)
    assert killed
    assert faults(service, job_id) == [], killed
    assert ("lost" in service.usage(job_id)) <= (Victim.engine in killed)
