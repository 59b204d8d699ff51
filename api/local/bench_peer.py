"""`isoflop bench peer`: completion tokens a second through the whole service, against `ray.data.llm`.

Both sides get the same prompts as token ids, the same sampling and engine arguments, one OpenMP thread, and the machine
to themselves. `ray.data.llm` keeps the first completion of a request, so each prompt is a row as often as it is drawn.
Its seconds run from the arrival of its first row to that of its last, though what had been drawn by then counts, and
it writes nothing; the service's run from the first task given to its engine to the commit of the last samples, and it
writes and hashes Parquet and scores. Neither counts loading the engine.

    python -m api.local.bench_peer DATABASE JOB NUM_SAMPLES BATCH_SIZE DIRECTORY

is the other side, a process with a Ray of its own. It prints what it took as JSON.
"""

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api.local.bench_machine import Machine, Spread, this_machine
from api.local.bench_plain import read_job
from api.local.bench_process import measure_apart
from api.local.bench_service import BenchService
from api.local.bench_throughput import THREADS, ServiceRun, draw_samples, keep_engine, run_service
from workers.engine import engine_arguments, engine_environment, how_to_draw

NUM_SAMPLES = 16
_SCORERS = ("math_answer",)
_NUM_CPUS = 8
"""Logical ones of its Ray: its stages are actors of one each, and would wait for each other for ever on two."""
_LIMIT_S = 1200.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerRun:
    """One dataset through `ray.data.llm`.

    Args:
        seconds: from the first row to the last.
        total_s: with the start of its engine.
    """

    rows: int
    tokens: int
    seconds: float
    total_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerPair:
    """Both sides, one after the other."""

    service: ServiceRun
    peer: PeerRun

    @property
    def ratio(self) -> float:
        """Tokens a second of the service over those of the peer."""
        return (self.service.tokens / self.service.drawing_s) / (self.peer.tokens / self.peer.seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerResult:
    """Pairs and their summary.

    Args:
        tried: tokens a second of the peer by batch size, before the pairs; the fastest is used.
    """

    machine: Machine
    tried: dict[int, float]
    batch_size: int
    pairs: tuple[PeerPair, ...]
    ratio: Spread


def bench_peer(directory: Path, *, num_pairs: int, num_problems: int, batch_sizes: tuple[int, ...]) -> PeerResult:
    """Finds the peer's best batch size, then draws pairs in turns; who begins alternates."""
    machine = this_machine()
    with BenchService(directory) as service:
        service.start()
        keep_engine(service)
        job_id = draw_samples(service, num_problems, 1, ()).id
        tried: dict[int, float] = {}
        for size in batch_sizes:
            found = _run_peer(service, job_id, size)
            tried[size] = found.tokens / found.seconds
        best = max(tried, key=lambda size: tried[size])
        pairs: list[PeerPair] = []
        for number in range(num_pairs):
            if number % 2:
                peer = _run_peer(service, job_id, best)
                drawn = run_service(service, num_problems, NUM_SAMPLES, _SCORERS)
            else:
                drawn = run_service(service, num_problems, NUM_SAMPLES, _SCORERS)
                peer = _run_peer(service, job_id, best)
            pairs.append(PeerPair(service=drawn, peer=peer))
    return PeerResult(
        machine=machine,
        tried=tried,
        batch_size=best,
        pairs=tuple(pairs),
        ratio=Spread.of([pair.ratio for pair in pairs]),
    )


def _run_peer(service: BenchService, job_id: str, batch_size: int) -> PeerRun:
    service.stop()
    directory = service.directory / "r"
    directory.mkdir(exist_ok=True)
    found = measure_apart(
        "api.local.bench_peer", service.database, job_id, NUM_SAMPLES, batch_size, directory, limit_s=_LIMIT_S
    )
    return PeerRun(**found)


def draw(database: Path, job_id: str, num_samples: int, batch_size: int, directory: Path) -> dict[str, Any]:
    """The peer's side."""
    import ray
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    model, prompts, sampling, seed = read_job(database, job_id)
    # its engine is a process of its own, as it always has it
    variables = {k: v for k, v in engine_environment(model, THREADS).items() if k != "VLLM_ENABLE_V1_MULTIPROCESSING"}
    ray.init(
        num_cpus=_NUM_CPUS,
        include_dashboard=False,
        _temp_dir=str(directory),
        runtime_env={"env_vars": variables},
        log_to_driver=False,
    )
    config = vLLMEngineProcessorConfig(
        model_source=model.path,
        engine_kwargs={k: v for k, v in engine_arguments(model, seed).items() if k != "model" and v is not None},
        concurrency=1,
        batch_size=batch_size,
        placement_group_config={"bundles": [{"CPU": 1, "GPU": 0}]},
        chat_template_stage=False,
        tokenize_stage=False,
        detokenize_stage=False,
        log_engine_metrics=False,
    )
    # the most tokens differ from prompt to prompt
    drawn = {k: v for k, v in how_to_draw(sampling, 0).items() if v not in (None, [])}
    processor = build_processor(
        config,
        preprocess=lambda row: {
            "tokenized_prompt": row["tokens"],
            "sampling_params": drawn | {"max_tokens": row["max_tokens"]},
        },
        postprocess=lambda row: {
            "text": row["generated_text"],
            "tokens": row["num_generated_tokens"],
            "at": time.time(),
        },
    )
    rows = [{"tokens": tokens, "max_tokens": most} for tokens, most in prompts for _ in range(num_samples)]
    started = time.time()
    made = processor(ray.data.from_items(rows)).materialize()
    total_s = time.time() - started
    found = made.take_all()
    arrived = [row["at"] for row in found]
    answer = {
        "rows": len(found),
        "tokens": int(sum(row["tokens"] for row in found)),
        "seconds": float(max(arrived) - min(arrived)),
        "total_s": total_s,
    }
    ray.shutdown()
    return answer


if __name__ == "__main__":
    database, job_id, num_samples, batch_size, directory = sys.argv[1:]
    print(json.dumps(draw(Path(database), job_id, int(num_samples), int(batch_size), Path(directory))))
