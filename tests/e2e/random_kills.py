"""Kills processes of a running service at random, reproducibly by seed, until a job ends.

What may be killed: the engine's host, the dispatcher, and the service itself, which is then started again. Each is
killed at most `MAX_KILLS` times a job: a task that loses five attempts fails its job, and rightly so.
"""

import os
import random
import signal
import time
from enum import StrEnum

import psutil

from service.cluster import HostKind
from service.tasks import MAX_LOST
from tests.e2e.service_process import ENDED, POLL_S, ServiceProcess

MAX_KILLS = MAX_LOST - 1
FLOPS = 3e12


class Victim(StrEnum):
    """Whose process is killed."""

    engine = "engine"
    dispatcher = "dispatcher"
    service = "service"


_KIND = {Victim.engine: HostKind.generator, Victim.dispatcher: HostKind.dispatcher}


def kill_until_ended(
    service: ServiceProcess, job_id: str, rng: random.Random, *, pause_s: tuple[float, float], patience_s: float
) -> list[Victim]:
    """Kills after pauses of random length until the job has ended; returns who was killed, in order."""
    deadline = time.monotonic() + patience_s
    killed: list[Victim] = []
    kill_at = time.monotonic() + rng.uniform(*pause_s)
    while service.job(job_id)["phase"] not in ENDED:
        assert time.monotonic() < deadline, f"killed {killed} in {patience_s:.0f} s; {service.explain(job_id)}"
        if time.monotonic() > kill_at:
            allowed = [victim for victim in Victim if killed.count(victim) < MAX_KILLS]
            if allowed and kill(service, victim := rng.choice(allowed)):
                killed.append(victim)
            kill_at = time.monotonic() + rng.uniform(*pause_s)
        time.sleep(POLL_S)
    return killed


def kill(service: ServiceProcess, victim: Victim) -> bool:
    """kill -9 of the victim; False where there is none at the moment."""
    if victim is Victim.service:
        service.kill()
        service.start()
        return True
    hosts = service.hosts(_KIND[victim])
    if not hosts:
        return False
    assert hosts[0].pid is not None
    try:
        is_host = psutil.Process(hosts[0].pid).is_running() and "ray::" in psutil.Process(hosts[0].pid).name()
        if is_host:
            os.kill(hosts[0].pid, signal.SIGKILL)
    except (psutil.NoSuchProcess, ProcessLookupError):
        return False  # it died a moment ago, and the service does not know yet
    return is_host


def submit_random(service: ServiceProcess, rng: random.Random) -> str:
    """A job on the simulated engine: either strategy, budgets of about ten seconds without any kill."""
    is_adaptive = rng.random() < 0.5
    allocation: dict[str, object] = {"strategy": "uniform"}
    if is_adaptive:
        allocation = {"strategy": "until_correct", "target_correct": rng.randint(1, 3), "max_samples": 6}
    return service.submit(
        models=["simulated"],
        problems="marked",
        budget={"flops": rng.uniform(0.5, 1.5) * FLOPS},
        allocation=allocation,
        sampling={"temperature": 0.8, "max_tokens": 64},
        scorers=["math_answer", "steps"],
        seed=rng.randrange(1000),
    )


def faults(service: ServiceProcess, job_id: str) -> list[str]:
    """What is wrong with a job that went through kills: files, plan, ledger, budget, or how it ended."""
    job = service.job(job_id)
    report = service.verify(job_id)
    found = list(report.faults)
    if job["phase"] != "succeeded":
        found.append(f"phase {job['phase']}: {job['error']}")
    budget = job["progress"]["budget"]
    if budget["reserved"] or budget["spent"] > budget["limit"]:
        found.append(f"account {budget}")
    if report.rows != job["progress"]["samples"]:
        found.append(f"{report.rows} rows in files, {job['progress']['samples']} in the database")
    num_scorers = len(job["document"]["scorers"])
    if report.score_rows != report.rows * num_scorers:
        found.append(f"{report.score_rows} score rows for {report.rows} samples and {num_scorers} scorers")
    is_uniform = job["document"]["allocation"]["strategy"] == "uniform"
    if is_uniform and budget["spent"] < 0.99 * budget["limit"]:
        found.append(f"only {budget['used_fraction']:.1%} of the budget used")
    return found
