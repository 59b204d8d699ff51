"""Draws from a finished job's prompts with vLLM's own `LLM.generate`: the other half of `bench throughput`.

    python -m api.local.bench_plain DATABASE JOB NUM_SAMPLES

A process of its own, for engines read their environment when they are imported. Prints tokens and seconds as JSON.
"""

import json
import sys
from pathlib import Path

from service.store import Store
from workers.engine import draw_plainly
from workers.prepared import read_prepared


def draw_again(database: Path, job_id: str, num_samples: int) -> tuple[int, float]:
    """Completion tokens and seconds for the job's model, prompts as token ids, and sampling; `num_samples` a prompt."""
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
    return draw_plainly(resolved.models[0], prompts, num_samples=num_samples, sampling=spec.sampling, seed=spec.seed)


if __name__ == "__main__":
    tokens, seconds = draw_again(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
    print(json.dumps({"tokens": tokens, "seconds": seconds}))
