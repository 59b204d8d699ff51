"""A whole comparison as a user runs it: real Ray, real vLLM, real training, and processes that die on the way."""

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from service.cluster import HostKind
from service.work import TaskKind
from tests.e2e.random_kills import MAX_KILLS
from tests.e2e.service_process import ENDED, POLL_S, TINY_WORLD, ServiceProcess, until

pytestmark = [pytest.mark.ray, pytest.mark.engine]

STEPS = 12
PAUSE_S = (6.0, 16.0)
SPLITS = {"train": 60, "validation": 12, "test": 16}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceProcess]:
    made = ServiceProcess(tmp_path)
    made.start()
    made.register_tiny_world()
    for split, num_problems in SPLITS.items():
        lines = (TINY_WORLD / "problems" / f"{split}.jsonl").read_text().splitlines()[:num_problems]
        path = tmp_path / f"{split}.jsonl"
        path.write_text("\n".join(lines))
        made.post("/v1/problems", {"name": f"few/{split}", "path": str(path)})
    yield made
    made.close()


def document(**finetune: Any) -> dict[str, Any]:
    """Right answers against right answers with right steps, from one model, at the same number of samples."""
    training = {"steps": STEPS, "num_checkpoints": 3, "batch_size": 8, "micro_batch_size": 8}
    arm = {"models": ["gsm-mini-small"]}
    return {
        "name": "do wrong steps hurt?",
        "problems": {split: f"few/{split}" for split in SPLITS},
        "match": {"by": "number", "reference": "correct", "samples_per_problem": 2},
        "arms": [arm | {"name": "correct"}, arm | {"name": "verified", "keep": "verified"}],
        "students": [{"name": "self-improvement", "base": "gsm-mini-small"}],
        "select": {"ngram": None},
        "finetune": {"preset": "tiny", "training": training} | finetune,
        "evaluate": {"maj_at": [2]},
        "sampling": {"temperature": 0.8},
        "scorers": ["math_answer", "steps"],
    }


def compare(service: ServiceProcess, body: dict[str, Any]) -> str:
    return service.post("/v1/comparisons", body)["id"]


def look(service: ServiceProcess, comparison_id: str) -> dict[str, Any]:
    return service.get(f"/v1/comparisons/{comparison_id}")


def wait_ended(service: ServiceProcess, comparison_id: str, patience_s: float = 240.0) -> dict[str, Any]:
    def found() -> dict[str, Any] | None:
        comparison = look(service, comparison_id)
        return comparison if comparison["phase"] in ENDED else None

    return until(found, f"{comparison_id} to end", patience_s, lambda: explain(service, comparison_id))


def explain(service: ServiceProcess, comparison_id: str) -> str:
    events = [f"{event['kind']}: {event['message']}" for event in service.events()[-12:]]
    open_children = [child for child in look(service, comparison_id)["children"] if child["phase"] != "succeeded"]
    return json.dumps({"open": open_children, "events": events}, indent=1)


def first_finetune(service: ServiceProcess, comparison_id: str) -> str | None:
    """The first finetune that has committed a checkpoint and goes on."""
    for child in look(service, comparison_id)["children"]:
        if child["key"].startswith("train/") and child["phase"] == "running":
            found = service.get(f"/v1/finetunes/{child['id']}")
            if 0 < len(found["checkpoints"]) < 3:
                return child["id"]
    return None


def committed(service: ServiceProcess, job_ids: list[str]) -> dict[str, list[tuple[str, str]]]:
    """Path and hash of every committed file of samples, by job."""
    parts = {job_id: service.store.reads.parts(job_id, TaskKind.generate) for job_id in job_ids}
    return {job_id: [(part.path, part.sha256) for part in found] for job_id, found in parts.items()}


def test_comparison_goes_on_from_the_last_checkpoint_when_its_trainer_dies(service: ServiceProcess) -> None:
    comparison_id = compare(service, document())
    patience = (f"a checkpoint of {comparison_id}", 180.0, lambda: explain(service, comparison_id))
    finetune_id = until(lambda: first_finetune(service, comparison_id), *patience)
    draws = [child["id"] for child in look(service, comparison_id)["children"] if child["key"].startswith("draw/")]
    before = committed(service, draws)
    os.kill(service.host_pid(HostKind.trainer), signal.SIGKILL)

    ended = wait_ended(service, comparison_id)

    assert (ended["phase"], ended["error"]) == ("succeeded", None)
    assert ended["nodes"] == ended["nodes_done"] == len(ended["children"])
    assert committed(service, draws) == before
    found = service.get(f"/v1/finetunes/{finetune_id}")
    steps = [checkpoint["step"] for checkpoint in found["checkpoints"]]
    assert steps == [4, 8, 12]
    (task,) = [task for task in service.store.reads.tasks(finetune_id) if task.kind is TaskKind.finetune]
    assert task.attempt == 2
    parts = service.store.reads.parts(finetune_id, TaskKind.finetune)
    assert {part.attempt_id for part in parts} == {f"{task.id}.1", f"{task.id}.2"}
    log = service.get(f"/v1/finetunes/{finetune_id}/log")["items"]
    assert [entry["step"] for entry in log] == sorted({entry["step"] for entry in log})

    results = service.get(f"/v1/comparisons/{comparison_id}/results")
    assert [arm["samples"] for arm in results["arms"]] == [120, 120]
    measures = {(item["arm"], item["measure"]): item for item in results["students"]}
    assert set(measures) == {(arm, measure) for arm in ("correct", "verified") for measure in ("greedy", "maj@2")}
    assert measures["verified", "greedy"]["num_problems"] == SPLITS["test"]
    assert 0 < measures["correct", "greedy"]["accuracy"]["value"] < 1
    stages = ended["flops_by_stage"]
    assert set(stages) == {"generate", "evaluate", "finetune"}

    # the same again takes what there is, a second seed only what is missing
    again = wait_ended(service, compare(service, document()))
    assert again["children"] == ended["children"]
    assert again["flops_by_stage"] == stages
    more = wait_ended(service, compare(service, document(seeds=2)))
    known = {child["id"] for child in ended["children"]}
    new = [child["key"] for child in more["children"] if child["id"] not in known]
    assert all("seed-1" in key for key in new)
    assert len(more["children"]) == more["nodes"] == len(ended["children"]) + len(new)


def test_student_trains_itself_in_rounds_at_the_cost_of_one(service: ServiceProcess) -> None:
    star = {"models": ["gsm-mini-small"], "name": "star", "rounds": 2, "allocation": {"strategy": "adastar"}}
    body = document()
    comparison_id = compare(service, body | {"arms": [body["arms"][0], star]})

    ended = wait_ended(service, comparison_id)

    assert (ended["phase"], ended["error"]) == ("succeeded", None)
    assert ended["nodes"] == ended["nodes_done"] == len(ended["children"])
    children = {child["key"]: child["id"] for child in ended["children"]}
    run = "self-improvement/star@2/seed-0"
    first, second = (service.get(f"/v1/jobs/{children[key]}") for key in ("draw/star@2", f"draw/{run}/round-2"))
    trained = [service.get(f"/v1/finetunes/{children[f'train/{run}/round-{round_}']}") for round_ in (1, 2)]
    (checkpoint,) = second["document"]["models"]
    assert checkpoint in [made["model"] for made in trained[0]["checkpoints"]]
    assert trained[1]["document"]["base"] == checkpoint
    assert [found["document"]["training"]["steps"] for found in trained] == [STEPS // 2, STEPS // 2]
    assert second["document"]["allocation"]["history"] == [first["id"]]
    assert first["progress"]["samples"] + second["progress"]["samples"] == 2 * SPLITS["train"]
    for job in (first, second):
        assert service.verify(job["id"]).faults == ()

    results = service.get(f"/v1/comparisons/{comparison_id}/results")
    rounds = results["rounds"]
    assert [(found["round"], found["samples"]) for found in rounds] == [(1, 60), (2, 60)]
    assert all(found["draw_flops"] > 0 and found["train_flops"] > 0 and found["accuracy"] for found in rounds)
    greedy = {item["arm"]: item for item in results["students"] if item["measure"] == "greedy"}
    assert greedy["star"]["accuracy"] == rounds[1]["accuracy"]


@pytest.mark.chaos
@pytest.mark.timeout(900)
def test_comparison_under_random_kills_ends_and_keeps_what_was_committed(service: ServiceProcess) -> None:
    seed = int(os.environ.get("ISOFLOP_CHAOS_SEED", time.time_ns() % 1_000_000))
    rng = random.Random(seed)
    comparison_id = compare(service, document(seeds=2))
    killed: list[str] = []
    seen: dict[str, list[tuple[str, str]]] = {}
    kill_at = time.monotonic() + rng.uniform(*PAUSE_S)
    deadline = time.monotonic() + 600.0
    while (comparison := look(service, comparison_id))["phase"] not in ENDED:
        assert time.monotonic() < deadline, f"seed {seed}, killed {killed}: {explain(service, comparison_id)}"
        draws = [child["id"] for child in comparison["children"] if child["key"].startswith("draw/")]
        now = committed(service, draws)
        for job_id, files in seen.items():
            assert now[job_id][: len(files)] == files, f"seed {seed}, killed {killed}: committed files changed"
        seen = now
        if time.monotonic() > kill_at:
            there = [victim for victim in ("trainer", "generator", "service") if killed.count(victim) < MAX_KILLS]
            there = [victim for victim in there if victim == "service" or _pids(service, victim)]
            if there:
                killed.append(victim := rng.choice(there))
                _kill(service, victim)
            kill_at = time.monotonic() + rng.uniform(*PAUSE_S)
        time.sleep(POLL_S)

    print(f"seed {seed}, killed {killed}")
    assert killed
    assert comparison["phase"] == "succeeded", f"seed {seed}, killed {killed}: {explain(service, comparison_id)}"
    for child in comparison["children"]:
        if child["key"].startswith(("draw/", "greedy/", "majority/", "validate/")):
            assert service.verify(child["id"]).faults == (), f"seed {seed}, killed {killed}: {child}"


def _pids(service: ServiceProcess, kind: str) -> list[int]:
    """Processes of hosts of a kind, as far as the service knows them, that are still Ray's workers."""
    pids = [host.pid for host in service.hosts(HostKind(kind)) if host.pid is not None and psutil.pid_exists(host.pid)]
    return [pid for pid in pids if "ray::" in psutil.Process(pid).name()]


def _kill(service: ServiceProcess, victim: str) -> None:
    if victim == "service":
        service.kill()
        service.start()
    else:
        os.kill(_pids(service, victim)[0], signal.SIGKILL)
