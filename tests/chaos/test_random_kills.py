"""Kills engines, dispatchers and the service itself for as long as asked, and checks every job that went through it.

`ISOFLOP_CHAOS_S` is how long [s], `ISOFLOP_CHAOS_SEED` makes a run that failed happen again as far as clocks allow.
"""

import os
import random
import time
from pathlib import Path

import pytest

from tests.e2e.random_kills import faults, kill_until_ended, submit_random
from tests.e2e.service_process import ServiceProcess

pytestmark = [pytest.mark.chaos, pytest.mark.ray]

SECONDS = float(os.environ.get("ISOFLOP_CHAOS_S", "60"))
SEED = int(os.environ.get("ISOFLOP_CHAOS_SEED", time.time_ns() % 1_000_000))
JOB_PATIENCE_S = 180.0


@pytest.mark.timeout(SECONDS + 2 * JOB_PATIENCE_S)
def test_jobs_under_random_kills_lose_and_double_nothing(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    service = ServiceProcess(tmp_path)
    try:
        service.start()
        service.register_simulated()
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            job_id = submit_random(service, rng)
            killed = kill_until_ended(service, job_id, rng, pause_s=(0.2, 4.0), patience_s=JOB_PATIENCE_S)
            print(f"seed {SEED}: {job_id} {service.job(job_id)['progress']['samples']} samples, killed {killed}")
            assert faults(service, job_id) == [], f"seed {SEED}, killed {killed}; {service.explain(job_id)}"
    finally:
        service.close()
