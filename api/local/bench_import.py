"""`isoflop bench import`: seconds and memory to make samples of completions in files.

    python -m api.local.bench_import DIRECTORY VARIANT

imports one set of files that `bench_import` has written, in a process of its own so that memory is its own too, and
prints what it took as JSON. Invariant: texts come from a seed and are about as long as GSM8K's solutions, and what an
import must make of them is known when they are written, so an import that is fast because it is wrong fails here.
"""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from api.local.bench_machine import Machine, this_machine
from api.local.bench_process import measure_apart, peak_mib
from api.local.bench_samples import make_questions, make_solutions, write_problems
from service.flops import AttentionTerm, ForwardCost
from service.importing.spec import ImportColumn, ImportFile, ImportSpec, MatchBy, Sampling, Tokens
from service.jobs import PromptSpec
from service.models import ModelSpec
from service.sampling import SamplingSpec
from service.shards import file_sha256
from service.work import AttemptSpec, ImportWork, TaskKind

SAMPLES_PER_PROBLEM = 100
_BATCH = 50_000
_VOCABULARY = 1000
_ID = ImportColumn(ours="problem_id", theirs="id", kind="a text")
_TEXT = ImportColumn(ours="completion", theirs="response", kind="a text")
_TEXTS = ImportColumn(ours="completion", theirs="responses", kind="a list of texts")
_QUESTION = ImportColumn(ours="question", theirs="question", kind="a text")


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One kind of old file, and how its tokens are counted."""

    file: str
    columns: tuple[ImportColumn, ...]
    tokens: Tokens = Tokens.tokenizer
    match_by: MatchBy = MatchBy.id


VARIANTS = {
    "JSONL": Variant(file="rows.jsonl", columns=(_ID, _TEXT)),
    "JSONL, tokens estimated": Variant(file="rows.jsonl", columns=(_ID, _TEXT), tokens=Tokens.estimate),
    "JSONL, by question": Variant(
        file="rows.jsonl", columns=(_QUESTION, _TEXT), tokens=Tokens.estimate, match_by=MatchBy.question
    ),
    "JSONL, a list a problem": Variant(file="lists.jsonl", columns=(_ID, _TEXTS)),
    "Parquet": Variant(file="rows.parquet", columns=(_ID, _TEXT)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportRun:
    """One import.

    Args:
        seconds: on the clock, hashing the file included.
        cpu_s: processor time of all threads of the process.
        tokens_s: of the seconds, those in which tokens were counted.
        read_s: those of the first pass: the file hashed, read and matched.
        peak_mib: resident memory of the process at its highest, imports included.
        idle_mib: the same before it began.
        tokens: of all completions.
    """

    variant: str
    seconds: float
    cpu_s: float
    read_s: float
    tokens_s: float
    write_s: float
    peak_mib: float
    idle_mib: float
    rows: int
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportResult:
    """All of them.

    Args:
        num_bytes: of the JSONL file with a row a completion.
        mean_chars: of a completion.
    """

    machine: Machine
    samples: int
    problems: int
    num_bytes: int
    mean_chars: float
    runs: tuple[ImportRun, ...]


def bench_import(directory: Path, samples: int, variants: Sequence[str] = tuple(VARIANTS)) -> ImportResult:
    """Writes the files, and imports each variant.

    Raises:
        ValueError: fewer samples than one problem has.
        RuntimeError: an import made other rows than it must.
    """
    if samples < SAMPLES_PER_PROBLEM:
        raise ValueError(f"samples must be at least {SAMPLES_PER_PROBLEM}, got {samples}")
    machine = this_machine()
    num_problems = samples // SAMPLES_PER_PROBLEM
    samples = num_problems * SAMPLES_PER_PROBLEM
    mean_chars = _write_files(directory, num_problems)
    runs = tuple(ImportRun(**measure_apart("api.local.bench_import", directory, variant)) for variant in variants)
    for run in runs:
        if run.rows != samples:
            raise RuntimeError(f"{run.variant}: made {run.rows:,} rows of {samples:,}")
    return ImportResult(
        machine=machine,
        samples=samples,
        problems=num_problems,
        num_bytes=(directory / "rows.jsonl").stat().st_size,
        mean_chars=mean_chars,
        runs=runs,
    )


def _write_files(directory: Path, num_problems: int) -> float:
    """Problems, a tokenizer and the completions in every form; their mean length in characters."""
    rng = np.random.default_rng(0)
    questions, solutions = make_questions(rng, 0, num_problems), make_solutions(rng)
    write_problems(directory / "problems.parquet", questions)
    _write_tokenizer(directory / "model", [*questions, *solutions])
    chosen = rng.integers(0, len(solutions), num_problems * SAMPLES_PER_PROBLEM)
    with (directory / "rows.jsonl").open("w") as rows, (directory / "lists.jsonl").open("w") as lists:
        for problem, question in enumerate(questions):
            first = problem * SAMPLES_PER_PROBLEM
            mine = chosen[first : first + SAMPLES_PER_PROBLEM].tolist()
            texts = [_completion(first + number, solutions[at]) for number, at in enumerate(mine)]
            lists.write(json.dumps({"id": f"p{problem}", "responses": texts}) + "\n")
            rows.writelines(
                json.dumps({"id": f"p{problem}", "question": question, "response": text}) + "\n" for text in texts
            )
    _write_parquet(directory / "rows.parquet", solutions, chosen)
    return float(np.array([len(text) for text in solutions])[chosen].mean())


def _write_parquet(path: Path, solutions: list[str], chosen: np.ndarray) -> None:
    schema = pa.schema([("id", pa.string()), ("response", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, len(chosen), _BATCH):
            mine = chosen[start : start + _BATCH]
            ids = [f"p{(start + offset) // SAMPLES_PER_PROBLEM}" for offset in range(len(mine))]
            texts = [_completion(start + number, solutions[at]) for number, at in enumerate(mine.tolist())]
            writer.write_table(pa.table([pa.array(ids), pa.array(texts)], schema=schema))


def _completion(number: int, text: str) -> str:
    """No two are the same, or counting each text once would look fast."""
    return f"Attempt {number}. {text}"


def _write_tokenizer(directory: Path, texts: Sequence[str]) -> None:
    """A byte-level BPE like GPT-2's, with a vocabulary small enough for several tokens a word."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<s>", "</s>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(_some(texts), trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>").save_pretrained(directory)


def _some(texts: Sequence[str]) -> Iterator[str]:
    yield from texts[:2000]
    yield from texts[-2000:]


def _import_once(directory: Path, name: str) -> ImportRun:
    from workers.importing import import_samples

    variant = VARIANTS[name]
    path = directory / variant.file
    problems = directory / "problems.parquet"
    term = AttentionTerm(flops_per_token_pair=100.0, window=None)
    cost = ForwardCost(
        body_flops_per_token=2e5,
        head_flops_per_token=1e4,
        attention=(term,),
        parameters=100_000,
        active_parameters=100_000,
        embedding_parameters=1_000,
    )
    work = ImportWork(
        spec=ImportSpec(
            files=(ImportFile(name=path.name, sha256=file_sha256(path), num_bytes=path.stat().st_size),),
            columns=variant.columns,
            match_by=variant.match_by,
            model="bench",
            is_known_model=variant.tokens is Tokens.tokenizer,
            tokens=variant.tokens,
            sampling=Sampling.unknown,
        ),
        paths=(str(path),),
        model=ModelSpec(name="bench", path=str(directory / "model"), revision="sha256:0", context_len=4096, cost=cost),
        problems_path=str(problems),
        num_problems=pq.read_metadata(problems).num_rows,
        prompt=PromptSpec(),
        sampling=SamplingSpec(),
    )
    slug = "".join(letter if letter.isalnum() else "-" for letter in name)
    spec = AttemptSpec(
        attempt_id="t.1", job_id="job", kind=TaskKind.import_, work=work, out_dir=str(directory / "made" / slug)
    )
    idle_mib = peak_mib()
    started, cpu_started = time.perf_counter(), time.process_time()
    receipts = import_samples(spec, work)
    return ImportRun(
        variant=name,
        seconds=time.perf_counter() - started,
        cpu_s=time.process_time() - cpu_started,
        read_s=receipts[0].facts["read_s"],
        tokens_s=receipts[0].facts["tokens_s"],
        write_s=receipts[0].facts["write_s"],
        peak_mib=peak_mib(),
        idle_mib=idle_mib,
        rows=sum(receipt.rows for receipt in receipts),
        tokens=sum(receipt.usage.completion_tokens for receipt in receipts),
    )


if __name__ == "__main__":
    from dataclasses import asdict

    print(json.dumps(asdict(_import_once(Path(sys.argv[1]), sys.argv[2]))))
