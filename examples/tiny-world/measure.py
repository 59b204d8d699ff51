"""Measure the shipped models on the problem sets with vLLM, and write the table into README.md.

python examples/tiny-world/measure.py            sample, judge, write (minutes)
python examples/tiny-world/measure.py --reuse    judge and write again from the samples of the last run
python examples/tiny-world/measure.py --judge    the same for the table of gsm-mini-judge alone; also with --reuse
"""

import argparse
import json
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from gsm_mini.checker import check, problem_from_row
from gsm_mini.engine import Samples, start_engine
from gsm_mini.judge_measures import Verdict, judge_rates, judge_summary
from gsm_mini.judging import NO, YES, judge_question
from gsm_mini.measures import judge_pool
from gsm_mini.summary import MeasuredPool, markdown_tables
from gsm_mini.world import Problem, ProblemRow

from service.scoring.base import Steps
from service.scoring.steps import StepCheck

HERE = Path(__file__).parent
SAMPLES = HERE / "runs" / "measure"
README = HERE / "README.md"
# the names of the two parts of the README that are written here
REASONERS, JUDGES = "measured", "judged"
JUDGE = "gsm-mini-judge"


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """One pool of samples to take; a temperature of 0 is greedy decoding."""

    problem_set: str
    temperature: float
    num_samples: int


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

# What the judge is asked about: samples of problems that it has not seen.
TO_JUDGE = ("gsm-mini-small", Draw(problem_set="train", temperature=0.8, num_samples=15))
ANSWERS = SAMPLES / f"{JUDGE}.json"


def main() -> None:
    """Sample with every model, one after the other, then judge and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reuse", action="store_true", help="judge the samples of the last run")
    parser.add_argument("--seed", type=int, default=0, help="seed of the engine")
    parser.add_argument("--judge", action="store_true", help="measure the judge alone")
    arguments = parser.parse_args()
    if arguments.judge:
        if not arguments.reuse:
            model, draw = TO_JUDGE
            print(in_own_process(sample_model, model, (draw,), arguments.seed), flush=True)
            print(in_own_process(ask_judge, arguments.seed), flush=True)
        tables, part = judge_tables(), JUDGES
    else:
        if not arguments.reuse:
            for model, draws in DRAWS.items():
                print(in_own_process(sample_model, model, draws, arguments.seed), flush=True)
        tables, part = markdown_tables([measured for model in DRAWS for measured in read_pools(model)]), REASONERS
    write_between_marks(README, part, tables)
    print(tables)


def in_own_process(function: Callable[..., str], *arguments: object) -> str:
    """What the function returns; a process for each engine, because it does not give its memory back."""
    # spawned, because torch has threads
    with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def sample_model(model: str, draws: Sequence[Draw], seed: int) -> str:
    """Take every draw of a model with one engine, write the samples, and return a line about them."""
    generate = start_engine(HERE / "models" / model, seed)
    num_tokens, seconds = 0, 0.0
    for draw in draws:
        questions = [row["question"] for row in read_rows(draw.problem_set)]
        samples = generate(questions, draw.num_samples, draw.temperature)
        write_samples(samples_path(model, draw), samples)
        num_tokens += sum(map(sum, samples.num_tokens))
        seconds += samples.seconds
    return f"{model}: {num_tokens:,} tokens in {seconds:.0f} s"


def ask_judge(seed: int) -> str:
    """Ask the judge greedily about every right answer, write what it says, and return a line about it."""
    generate = start_engine(HERE / "models" / JUDGE, seed)
    answers = generate([judge_question(problem.question, text) for _, problem, text, _ in right_answers()], 1, 0.0)
    write_samples(ANSWERS, answers)
    return f"{JUDGE}: {len(answers.completions):,} answers in {answers.seconds:.0f} s"


def right_answers() -> Iterator[tuple[int, Problem, str, int]]:
    """Position, problem, text and number of samples of each distinct completion with a right answer."""
    model, draw = TO_JUDGE
    samples = Samples(**json.loads(samples_path(model, draw).read_text()))
    for position, (row, texts) in enumerate(zip(read_rows(draw.problem_set), samples.completions, strict=True)):
        problem = problem_from_row(row)
        for text, count in Counter(texts).items():
            if check(problem, text).answer_correct:
                yield position, problem, text, count


def judge_tables() -> str:
    """What the judge, and the scorer `steps`, make of the right answers that the judge was asked about."""
    answers = Samples(**json.loads(ANSWERS.read_text())).completions
    by_judge: list[Verdict] = []
    by_steps: list[Verdict] = []
    for (position, problem, text, count), (answer,) in zip(right_answers(), answers, strict=True):
        reason = check(problem, text).reason
        said = {YES: True, NO: False}.get(answer)
        by_judge += [Verdict(problem=position, reason=reason, says_valid=said)] * count
        by_steps += [Verdict(problem=position, reason=reason, says_valid=steps_hold(text))] * count
    model, draw = TO_JUDGE
    return judge_summary(
        {JUDGE: judge_rates(by_judge), "scorer `steps`": judge_rates(by_steps)},
        f"{model} on `{draw.problem_set}`, temperature {draw.temperature}, {draw.num_samples} samples a problem",
    )


def steps_hold(completion: str) -> bool | None:
    """What the application's arithmetic check says; None where it finds nothing to check."""
    graded = StepCheck().grade(completion=completion, reference="", finish_reason="stop", question="", structure=None)
    return {Steps.VALID: True, Steps.INVALID: False}.get(graded.steps or Steps.UNKNOWN)


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


def write_samples(path: Path, samples: Samples) -> None:
    """Keep samples between sampling and judging."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(samples)))


def write_between_marks(path: Path, part: str, text: str) -> None:
    """Replace what stands between the two marks of a part of a file.

    Raises:
        ValueError: if the file lacks a mark.
    """
    begin_mark, end_mark = f"<!-- {part}: begin -->", f"<!-- {part}: end -->"
    before, begin, rest = path.read_text().partition(begin_mark)
    _, end, after = rest.partition(end_mark)
    if not begin or not end:
        raise ValueError(f"{path} lacks the marks; wanted {begin_mark!r} and {end_mark!r}")
    path.write_text(f"{before}{begin_mark}\n{text.strip()}\n{end_mark}{after}")


if __name__ == "__main__":
    main()
