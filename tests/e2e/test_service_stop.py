"""SIGTERM to the service, at every stage of its start and in the middle of a job: nothing of it stays, and it is quick.

On real Ray with the simulated engine.
"""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.service_process import REPOSITORY, ServiceProcess, command, until

pytestmark = pytest.mark.ray

GONE_S = 10.0
"""A start that is called off takes no longer than this to be gone."""
STOP_S = 30.0
"""A job's samples take a second or two, writing them less."""
HURRIED_S = 4.0
"""... and a service that is told twice."""


class Starting:
    """A service process, and everything that was ever started for its data directory."""

    def __init__(self, directory: Path) -> None:
        self.data_dir = directory / "data"
        self.log_path = directory / "service.log"
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                command(self.data_dir),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=REPOSITORY,
                start_new_session=True,
            )

    def reached(self, stage: str) -> bool:
        """Whether the start has come as far as that."""
        log = self.data_dir / "ray" / "head.log"
        match stage:
            case "serving":
                return (self.data_dir / "url").exists()
            case "head spawned":
                return (self.data_dir / "ray" / "head.json").exists()
            case "head half started":
                return log.exists() and any(self.find("gcs_server"))
            case _:
                return log.exists() and "Ray runtime started" in log.read_text()

    def find(self, word: str = "") -> Iterator[psutil.Process]:
        """Living processes with the data directory and the word in their command line."""
        for process in psutil.process_iter(["cmdline", "status"]):
            line = " ".join(process.info["cmdline"] or ())
            if str(self.data_dir) in line and word in line and process.info["status"] != psutil.STATUS_ZOMBIE:
                yield process


@pytest.fixture
def starting() -> Iterator[Starting]:
    # so short that Ray keeps its files in the data directory, whose name then tells its processes from others
    with tempfile.TemporaryDirectory(prefix="stop-", dir="/tmp", ignore_cleanup_errors=True) as directory:
        starting = Starting(Path(directory))
        yield starting
        for process in starting.find():
            process.kill()
        starting.process.wait(timeout=10)


@pytest.mark.parametrize("stage", ["serving", "head spawned", "head half started", "head started"])
def test_start_that_is_called_off_leaves_no_process(starting: Starting, stage: str) -> None:
    until(lambda: starting.reached(stage), stage, 60.0)
    asked_at = time.monotonic()
    starting.process.send_signal(signal.SIGTERM)
    assert starting.process.wait(timeout=GONE_S) == 0, starting.log_path.read_text()
    until(lambda: not any(starting.find()), "every process to be gone", GONE_S - (time.monotonic() - asked_at))
    assert "Traceback" not in starting.log_path.read_text()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    service = ServiceProcess(tmp_path_factory.mktemp("stop"))
    yield service
    service.close()


@pytest.fixture
def job_id(service: ServiceProcess) -> str:
    """A job that draws samples, has files and is far from its end."""
    service.ensure_running()
    service.register_simulated()
    jobs = service.items("/v1/jobs")
    job_id = jobs[0]["id"] if jobs else service.submit(models=["simulated"], problems="marked", budget={"flops": 1e13})
    service.wait_parts(job_id, len(service.files(job_id)) + 1)
    return job_id


def test_stop_in_the_middle_of_a_job_says_what_it_waits_for_and_draws_nothing_twice(
    service: ServiceProcess, job_id: str
) -> None:
    cluster = service.cluster_processes()
    usage = service.usage(job_id)
    asked_at = time.monotonic()
    assert service.stop(STOP_S) == 0, service.output()
    print(f"stopped within {time.monotonic() - asked_at:.1f} s")
    assert [process for process in cluster if process.is_alive()] == []
    assert "to write what" in service.output()
    assert "press Ctrl-C again to stop at once" in service.output()
    assert "stopping Ray" in service.output()
    # every sample that was drawn is in a file, and what was not is nobody's: the next start draws only that
    tasks = service.store.reads.tasks(job_id)
    assert not any(task.state.is_in_flight for task in tasks)
    used = {row.outcome for row in service.store.reads.usage(job_id=job_id) if row.stage == "generate"}
    assert used - set(usage) <= {"useful", "truncated"}


def test_second_signal_ends_everything_at_once(service: ServiceProcess, job_id: str) -> None:
    assert service.job(job_id)["phase"] == "running"
    cluster = service.cluster_processes()
    os.kill(service.pid, signal.SIGINT)
    os.kill(service.pid, signal.SIGTERM)
    assert service.wait_exit(HURRIED_S) == 130
    assert [process for process in cluster if process.is_alive()] == []
    assert service.head() is None
