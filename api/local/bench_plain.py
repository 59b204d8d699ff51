"""Draws from a finished job's prompts with vLLM's own `LLM.generate`: the other half of `bench throughput`.

    python -m api.local.bench_plain DATABASE JOB NUM_SAMPLES

A process of its own, for engines read their environment when they are imported. Prints tokens and seconds as JSON.

    python -m api.local.bench_plain DATABASE JOB --turns

loads once, prints how long that took, and draws as many samples a prompt as each line of its input says: for
`bench gpu`, where a load takes longer than a turn.
"""

import json
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from service.models import ModelSpec
from service.sampling import SamplingSpec
from service.store import Store
from workers.engine import PlainVllm
from workers.prepared import read_prepared

Prompts = list[tuple[list[int], int]]


def read_job(database: Path, job_id: str) -> tuple[ModelSpec, Prompts, SamplingSpec, int]:
    """The job's model, prompts as token ids with the most tokens of a completion, sampling and seed."""
    store = Store.open(f"sqlite:///{database}")
    try:
        spec, resolved = store.jobs.get(job_id).spec, store.jobs.resolved(job_id)
        (item,) = store.reads.prepared(job_id)
    finally:
        store.close()
    prepared = read_prepared(item["path"])
    prompts = [
        (prepared.tokens(problem), int(prepared.max_tokens[problem])) for problem in range(len(prepared.problem_ids))
    ]
    return resolved.models[0], prompts, spec.sampling, spec.seed


def draw_turns(database: Path, job_id: str, turns: Iterable[int]) -> Iterator[dict[str, Any]]:
    """`load_s` once the engine is ready, imports included; then tokens and seconds of each turn.

    Args:
        turns: samples a prompt of each turn; taken one at a time.
    """
    started = time.perf_counter()
    model, prompts, sampling, seed = read_job(database, job_id)
    engine = PlainVllm(model, seed=seed)
    yield {"load_s": time.perf_counter() - started}
    for num_samples in turns:
        tokens, seconds = engine.draw(prompts, num_samples=num_samples, sampling=sampling)
        yield {"tokens": tokens, "seconds": seconds}
    engine.close()


if __name__ == "__main__":
    asked = map(int, sys.stdin) if sys.argv[3] == "--turns" else [int(sys.argv[3])]
    found = draw_turns(Path(sys.argv[1]), sys.argv[2], asked)
    if sys.argv[3] != "--turns":
        next(found)
    for answer in found:
        print(json.dumps(answer), flush=True)
