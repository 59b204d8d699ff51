"""Runs a generator host on a real engine in a process of its own, as an actor would; the test reads what it leaves.

Arguments: a folder with the model, and the prepared prompts. Prints the final reports as JSON on the last line.
"""

import json
import sys
from pathlib import Path

from service.cluster import AttemptReport, AttemptState, Grant, HostState, Orders, Stop, StopMode
from service.models import EngineOptions, ModelSpec
from service.sampling import SamplingSpec, Structure
from service.work import AttemptSpec
from tests.workers.generate_attempts import COST, generate_attempt
from workers.engine import VllmEngine
from workers.generator import GeneratorHost

CONTEXT_LEN = 192


def model_spec(path: Path) -> ModelSpec:
    options = EngineOptions(dtype="float32", max_num_seqs=64, kv_cache_gib=0.1)
    return ModelSpec(
        name="tiny", path=str(path), revision="sha256:0", context_len=CONTEXT_LEN, cost=COST, engine=options
    )


def attempt(folder: Path, name: str, *, runs: list[list[int]], sampling: SamplingSpec) -> AttemptSpec:
    return generate_attempt(
        folder,
        name,
        model=model_spec(folder / "model"),
        prepared_path=folder / "prepared" / "part-00000.parquet",
        runs=runs,
        sampling=sampling,
        seed=3,
        flush_rows=60,
    )


def begin(host: GeneratorHost, spec: AttemptSpec, credit: float) -> None:
    grant = Grant(attempt_id=spec.attempt_id, version=1, credit=credit)
    host.exchange(Orders(submits=(spec,), grants=(grant,)))
    while host.write_once():
        pass


def run(host: GeneratorHost, name: str, *, steps: int = 100_000) -> AttemptReport:
    report = None
    for _ in range(steps):
        host.step_once()
        while host.write_once():
            pass
        report = next(r for r in host.exchange(Orders()).attempts if r.attempt_id == name)
        if report.state is not AttemptState.running:
            break
    assert report is not None
    return report


def summary(report: AttemptReport) -> dict[str, object]:
    return {
        "state": report.state,
        "error": report.error,
        "used": report.used,
        "inflight_worst": report.inflight_worst,
        "parts": [receipt.path for receipt in report.receipts],
        "flops": sum(receipt.usage.flops for receipt in report.receipts),
        "wasted_samples": report.wasted.samples,
        "wasted_tokens": report.wasted.completion_tokens,
        "returned": 0 if report.returned is None else len(report.returned),
    }


def main(folder: Path) -> None:
    host = GeneratorHost(engine_factory=lambda: VllmEngine(model_spec(folder / "model"), seed=11))
    host.load()
    assert host.state is HostState.ready
    reports: dict[str, object] = {}
    everything = [[problem, 0, 4] for problem in range(40)]

    begin(host, attempt(folder, "all.1", runs=everything, sampling=SamplingSpec(temperature=1.0)), 1e15)
    reports["all"] = summary(run(host, "all.1"))

    greedy = attempt(folder, "greedy.1", runs=[[0, 0, 3], [1, 0, 3]], sampling=SamplingSpec(temperature=0.0))
    begin(host, greedy, 1e15)
    reports["greedy"] = summary(run(host, "greedy.1"))

    once = [[problem, 0, 1] for problem in range(40)]
    for name, stop in (("ours", ()), ("theirs", ("no such text",))):  # a stop string makes vLLM decode as it goes
        sampling = SamplingSpec(temperature=0.0, stop=stop)
        begin(host, attempt(folder, f"{name}.1", runs=once, sampling=sampling), 1e15)
        reports[name] = summary(run(host, f"{name}.1"))

    shaped = {
        "choice": SamplingSpec(temperature=1.0, structure=Structure(choice=("12", "345"))),
        "regex": SamplingSpec(temperature=1.0, structure=Structure(regex="[0-3]{4}")),
        "top_k": SamplingSpec(temperature=2.0, top_k=1),
        "penalty": SamplingSpec(temperature=0.0, repetition_penalty=10.0),
    }
    for name, sampling in shaped.items():
        begin(host, attempt(folder, f"{name}.1", runs=once, sampling=sampling), 1e15)
        reports[name] = summary(run(host, f"{name}.1"))

    begin(host, attempt(folder, "abort.1", runs=everything, sampling=SamplingSpec()), 1e15)
    run(host, "abort.1", steps=4)
    host.exchange(Orders(stops=(Stop(attempt_id="abort.1", mode=StopMode.abort),)))
    reports["abort"] = summary(run(host, "abort.1"))

    refused = attempt(folder, "refused.1", runs=[[40, 0, 2]], sampling=SamplingSpec())
    begin(host, refused, 1e15)
    reports["refused"] = summary(run(host, "refused.1"))
    print(json.dumps(reports))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
