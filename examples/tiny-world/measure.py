"""Measure the shipped models on the problem sets with vLLM, and write the table into README.md.

python examples/tiny-world/measure.py            sample, judge, write (minutes)
python examples/tiny-world/measure.py --reuse    judge and write again from the samples of the last run
"""

import argparse
import json
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from gsm_mini.checker import problem_from_row
from gsm_mini.measures import judge_pool
from gsm_mini.summary import MeasuredPool, markdown_tables
from gsm_mini.world import ProblemRow

HERE = Path(__file__).parent
SAMPLES = HERE / "runs" / "measure"
README = HERE / "README.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
CONTEXT_TOKENS = 192


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """One pool of samples to take; a temperature of 0 is greedy decoding."""

    problem_set: str
    temperature: float
    num_samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Completions and their numbers of tokens, by problem."""

    completions: list[list[str]]
    num_tokens: list[list[int]]
    seconds: float


GREEDY = tuple(Draw(problem_set=name, temperature=0.0, num_samples=1) for name in ("validation", "test", "transfer"))
DRAWS: dict[str, tuple[Draw, ...]] = {
    "gsm-mini-small": (
        Draw(problem_set="test", temperature=0.8, num_samples=100),
        Draw(problem_set="transfer", temperature=0.8, num_samples=10),
        *GREEDY,
    ),
    "gsm-mini-large": (
        Draw(problem_set="test", temperature=0.8, num_samples=40),
        Draw(problem_set="transfer", temperature=0.8, num_samples=10),
        *GREEDY,
    ),
    "gsm-mini-early": (
        Draw(problem_set="test", temperature=0.8, num_samples=10),
        Draw(problem_set="transfer", temperature=0.8, num_samples=10),
        *GREEDY,
    ),
}


def main() -> None:
    """Sample with every model, one after the other, then judge and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reuse", action="store_true", help="judge the samples of the last run")
    parser.add_argument("--seed", type=int, default=0, help="seed of the engine")
    arguments = parser.parse_args()
    if not arguments.reuse:
        # A process per model, because an engine does not give its memory back; spawned, because torch has threads.
        context = multiprocessing.get_context("spawn")
        for model in DRAWS:
            with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
                print(pool.submit(sample_model, model, arguments.seed).result(), flush=True)
    tables = markdown_tables([measured for model in DRAWS for measured in read_pools(model)])
    write_between_marks(README, tables)
    print(tables)


def sample_model(model: str, seed: int) -> str:
    """Take every draw of a model with one engine, write the samples, and return a line about them."""
    # In process and on one thread: for models this small, more processes only cost time.
    os.environ.update(
        VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_CPU_KVCACHE_SPACE="1", VLLM_LOGGING_LEVEL="WARNING",
        VLLM_NO_USAGE_STATS="1", OMP_NUM_THREADS="1",
    )  # fmt: skip
    from gsm_mini.tokenizer import prompt_ids
    from transformers import PreTrainedTokenizerFast
    from vllm import LLM, SamplingParams

    engine = LLM(
        model=str(HERE / "models" / model), dtype="float32", max_model_len=CONTEXT_TOKENS, max_num_seqs=256,
        enforce_eager=True, distributed_executor_backend="uni", seed=seed,
    )  # fmt: skip
    tokenizer = PreTrainedTokenizerFast.from_pretrained(HERE / "models" / model)
    num_tokens, seconds = 0, 0.0
    for draw in DRAWS[model]:
        prompts = [prompt_ids(tokenizer, row["question"]) for row in read_rows(draw.problem_set)]
        # No seed per request: with it, the CPU engine fails on prompts that it computes in parts.
        params = [
            SamplingParams(n=draw.num_samples, temperature=draw.temperature, max_tokens=CONTEXT_TOKENS - len(prompt))
            for prompt in prompts
        ]
        started = time.monotonic()
        outputs = engine.generate([{"prompt_token_ids": prompt} for prompt in prompts], params, use_tqdm=False)
        samples = Samples(
            completions=[[completion.text for completion in output.outputs] for output in outputs],
            num_tokens=[[len(completion.token_ids) for completion in output.outputs] for output in outputs],
            seconds=time.monotonic() - started,
        )
        path = samples_path(model, draw)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(samples)))
        num_tokens += sum(map(sum, samples.num_tokens))
        seconds += samples.seconds
    return f"{model}: {num_tokens:,} tokens in {seconds:.0f} s"


def read_pools(model: str) -> list[MeasuredPool]:
    """Judge the samples of a model."""
    measured: list[MeasuredPool] = []
    for draw in DRAWS[model]:
        samples = Samples(**json.loads(samples_path(model, draw).read_text()))
        problems = [problem_from_row(row) for row in read_rows(draw.problem_set)]
        pools = [judge_pool(*judged) for judged in zip(problems, samples.completions, strict=True)]
        lengths = [length for of_problem in samples.num_tokens for length in of_problem]
        measured.append(
            MeasuredPool(
                model=model,
                problem_set=draw.problem_set,
                temperature=draw.temperature,
                levels=[problem.num_steps for problem in problems],
                pools=pools,
                mean_tokens=sum(lengths) / len(lengths),
            )
        )
    return measured


def read_rows(problem_set: str) -> list[ProblemRow]:
    """Rows of a problem file."""
    return [json.loads(line) for line in (HERE / "problems" / f"{problem_set}.jsonl").read_text().splitlines()]


def samples_path(model: str, draw: Draw) -> Path:
    """Where the samples of a draw lie between sampling and judging."""
    return SAMPLES / f"{model}-{draw.problem_set}-{draw.temperature}.json"


def write_between_marks(path: Path, text: str) -> None:
    """Replace what stands between the two marks of a file.

    Raises:
        ValueError: if the file lacks a mark.
    """
    before, begin, rest = path.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path} lacks the marks; wanted {BEGIN!r} and {END!r}")
    path.write_text(f"{before}{BEGIN}\n{text.strip()}\n{END}{after}")


if __name__ == "__main__":
    main()
