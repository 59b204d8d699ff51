"""Imported samples: tokens as the model's own tokenizer counts them, prices as for drawn ones, all files or none."""

import dataclasses
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from service.errors import CorruptFile, InvalidInput
from service.flops import sample_flops
from service.importing.spec import ImportColumn, ImportFile, ImportSpec, MatchBy, Sampling, Tokens
from service.jobs import PromptSpec
from service.models import ModelSpec
from service.records import PROBLEM_SCHEMA, SAMPLE_SCHEMA, ProblemRow
from service.sampling import SamplingSpec
from service.shards import file_sha256
from service.tasks import expand_runs, to_runs
from service.work import AttemptSpec, ImportWork, TaskKind
from tests.simulation.world import COST
from workers.dispatcher import make
from workers.importing import PART_ROWS, import_samples

TINY = Path(__file__).parents[2] / "examples" / "tiny-world" / "models" / "gsm-mini-small"
QUESTIONS = ("Ann has 2 plums and gets 3. How many?", "Tom has 2 pens and finds 3. How many?")


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def make_work(directory: Path, rows: list[dict[str, Any]], **changes: Any) -> ImportWork:
    """An import of rows with `id` and `text`; keywords replace fields of its spec."""
    problems = [
        ProblemRow(problem_id=f"p{i}", question=question, reference="5", level=None, structure=None)
        for i, question in enumerate(QUESTIONS)
    ]
    pq.write_table(
        pa.Table.from_pylist([asdict(row) for row in problems], schema=PROBLEM_SCHEMA), directory / "problems.parquet"
    )
    path = write(directory / "old.jsonl", rows)
    spec = ImportSpec(
        files=(ImportFile(name="old.jsonl", sha256=file_sha256(path), num_bytes=Path(path).stat().st_size),),
        columns=(
            ImportColumn(ours="problem_id", theirs="id", kind="a text"),
            ImportColumn(ours="completion", theirs="text", kind="a text"),
        ),
        match_by=MatchBy.id,
        model="tiny",
        is_known_model=True,
        tokens=Tokens.tokenizer,
        sampling=Sampling.unknown,
    )
    return ImportWork(
        spec=replace(spec, **changes),
        paths=(path,),
        model=ModelSpec(name="tiny", path=str(TINY), revision="sha256:0", context_len=256, cost=COST),
        problems_path=str(directory / "problems.parquet"),
        num_problems=len(QUESTIONS),
        prompt=PromptSpec(),
        sampling=SamplingSpec(),
    )


def attempt(directory: Path, work: ImportWork, number: int = 1) -> AttemptSpec:
    return AttemptSpec(
        attempt_id=f"t.{number}",
        job_id="job",
        kind=TaskKind.import_,
        work=work,
        out_dir=str(directory / "attempts" / f"t.{number}"),
    )


def run(directory: Path, work: ImportWork) -> pa.Table:
    receipts = import_samples(attempt(directory, work), work)
    return pa.concat_tables([pq.ParquetFile(receipt.path).read() for receipt in receipts])


def test_tokens_and_flops_are_those_of_a_drawn_sample_with_nothing_cached(tmp_path: Path) -> None:
    text = "2+3=5. #### 5"

    (row,) = run(tmp_path, make_work(tmp_path, [{"id": "p1", "text": text}])).to_pylist()

    tokenizer = AutoTokenizer.from_pretrained(TINY)
    prompt = tokenizer(f"{QUESTIONS[1]}\n", add_special_tokens=False)["input_ids"]
    completion = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert row["prompt"] == f"{QUESTIONS[1]}\n"
    assert row["prompt_tokens"] == 1 + len(prompt)  # and the beginning of the sequence
    assert row["completion_tokens"] == len(completion) + 1  # and its end
    assert row["flops"] == sample_flops(
        COST, prompt_tokens=row["prompt_tokens"], cached_tokens=0, completion_tokens=row["completion_tokens"]
    )


def test_parts_have_the_schema_of_drawn_ones_and_a_bounded_number_of_rows(tmp_path: Path) -> None:
    rows = [{"id": f"p{i % 2}", "text": f"{i}"} for i in range(PART_ROWS + 10_000)]
    work = make_work(tmp_path, rows)

    receipts = import_samples(attempt(tmp_path, work), work)

    assert sum(receipt.rows for receipt in receipts) == len(rows)
    assert [receipt.part for receipt in receipts] == [0, 1]
    for receipt in receipts:
        table = pq.ParquetFile(receipt.path).read()
        assert table.schema.equals(SAMPLE_SCHEMA)
        assert receipt.indices is not None
        assert np.array_equal(
            receipt.indices, np.column_stack([table["problem_index"].to_numpy(), table["sample_index"].to_numpy()])
        )
    assert {"rows": 30_000.0, "unmatched": 0.0}.items() <= receipts[0].facts.items()


def test_an_attempt_done_before_is_found_and_not_made_again(tmp_path: Path) -> None:
    work = make_work(tmp_path, [{"id": "p0", "text": "a"}])
    spec = attempt(tmp_path, work)
    first = make(spec)
    Path(work.paths[0]).unlink()

    again = make(spec)

    assert isinstance(first, tuple)
    assert isinstance(again, tuple)
    assert [(each.path, each.sha256) for each in again] == [(each.path, each.sha256) for each in first]


def test_what_a_killed_process_left_is_no_part_and_is_replaced(tmp_path: Path) -> None:
    work = make_work(tmp_path, [{"id": "p0", "text": "a"}])
    left = tmp_path / "attempts" / "t.1.unfinished" / "part-00000.parquet"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half a file")

    table = run(tmp_path, work)

    assert table.num_rows == 1
    assert [path.name for path in (tmp_path / "attempts").iterdir()] == ["t.1"]


def test_what_a_killed_attempt_left_is_removed_by_the_next_one_and_nothing_else(tmp_path: Path) -> None:
    work = make_work(tmp_path, [{"id": "p0", "text": "a"}])
    for name in ("t.1.unfinished", "t.3.unfinished", "other.1.unfinished", "t.1"):
        (tmp_path / "attempts" / name).mkdir(parents=True)

    make(dataclasses.replace(attempt(tmp_path, work), attempt_id="t.2", out_dir=str(tmp_path / "attempts" / "t.2")))

    assert {path.name for path in (tmp_path / "attempts").iterdir()} == {
        "t.2",
        "t.3.unfinished",
        "other.1.unfinished",
        "t.1",
    }


def test_a_file_that_changed_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    work = make_work(tmp_path, [{"id": "p0", "text": "a"}])
    write(tmp_path / "old.jsonl", [{"id": "p0", "text": "b"}])

    with pytest.raises(CorruptFile, match="changed since the import was submitted"):
        run(tmp_path, work)
    assert not (tmp_path / "attempts").exists()


def test_a_model_without_a_tokenizer_is_refused_and_nothing_appears(tmp_path: Path) -> None:
    work = make_work(tmp_path, [{"id": "p0", "text": "a"}])
    work = replace(work, model=replace(work.model, path=str(tmp_path / "gone")))

    with pytest.raises(InvalidInput, match="no tokenizer"):
        run(tmp_path, work)
    assert not (tmp_path / "attempts" / "t.1").exists()


def test_sample_ids_depend_on_model_problem_and_index_and_not_on_the_job(tmp_path: Path) -> None:
    work = make_work(tmp_path, [{"id": "p0", "text": "a"}, {"id": "p0", "text": "a"}, {"id": "p1", "text": "a"}])
    first = run(tmp_path, work)
    other = replace(attempt(tmp_path, work, 2), job_id="another")

    again = pq.ParquetFile(import_samples(other, work)[0].path).read()
    renamed = replace(work, model=replace(work.model, name="other"))
    of_other = pq.ParquetFile(import_samples(attempt(tmp_path, renamed, 3), renamed)[0].path).read()

    assert len(set(first["sample_id"].to_pylist())) == 3
    assert again["sample_id"].equals(first["sample_id"])
    assert not set(of_other["sample_id"].to_pylist()) & set(first["sample_id"].to_pylist())


@pytest.mark.parametrize("seed", range(5))
def test_runs_of_samples_hold_each_sample_once(seed: int) -> None:
    rng = np.random.default_rng(seed)
    every = np.array([(problem, index) for problem in range(8) for index in range(9)], dtype=np.int32)
    some = rng.permutation(every[rng.random(len(every)) < 0.7])

    found = expand_runs(to_runs(some))

    assert np.array_equal(found, some[np.lexsort((some[:, 1], some[:, 0]))])
    assert len(to_runs(every)) == 8
    assert to_runs(every[:0]).shape == (0, 3)
