"""Runs a stream of attempts of several checkpoints through one real engine, in a process of its own as an actor would.

Arguments: a folder with the models and the prepared prompts; the model that the engine starts with; then attempts as
`name=model`, all submitted at once. Prints what became of them as JSON on the last line.
"""

import dataclasses
import json
import sys
from pathlib import Path

from service.cluster import AttemptState, Grant, HostState, Orders
from service.models import ModelSpec
from service.sampling import SamplingSpec
from service.work import AttemptSpec
from tests.engine.drive_engine import model_spec
from tests.workers.generate_attempts import generate_attempt
from workers.engine import VllmEngine
from workers.generator import GeneratorHost


def spec_of(folder: Path, name: str) -> ModelSpec:
    return dataclasses.replace(model_spec(folder / name), name=name, base="base", revision=f"sha256:{name}")


def attempt(folder: Path, name: str, model: str) -> AttemptSpec:
    return generate_attempt(
        folder,
        name,
        model=spec_of(folder, model),
        prepared_path=folder / "prepared" / "part-00000.parquet",
        # every prompt again when its first sample has ended, so that its keys and values are found
        runs=[[problem, sample, 1] for sample in range(2) for problem in range(40)],
        sampling=SamplingSpec(temperature=0.0),
    )


def main(folder: Path, first: str, attempts: dict[str, str]) -> None:
    host = GeneratorHost(engine_factory=lambda: VllmEngine(spec_of(folder, first), seed=11))
    host.load()
    specs = tuple(attempt(folder, name, model) for name, model in attempts.items())
    grants = tuple(Grant(attempt_id=spec.attempt_id, version=1, credit=1e15) for spec in specs)
    host.exchange(Orders(submits=specs, grants=grants))
    open_names = set(attempts)
    while open_names:
        while host.write_once():
            pass
        host.step_once()
        reports = host.exchange(Orders()).attempts
        open_names = {report.attempt_id for report in reports if report.state is AttemptState.running}
    last = host.exchange(Orders())
    assert last.state is HostState.ready
    found = {
        report.attempt_id: {
            "state": report.state,
            "error": report.error,
            "is_retriable": report.is_retriable,
            "parts": [receipt.path for receipt in report.receipts],
        }
        for report in last.attempts
    }
    print(json.dumps({"attempts": found, "num_swaps": last.num_swaps, "swap_s": last.swap_s}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], dict(pair.split("=") for pair in sys.argv[3:]))
