"""Training sets as a selection leaves them, written without running one."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from service.receipts import Receipt, Usage
from service.records import SELECTED_SCHEMA
from service.selection.decontaminate import Contamination, Overlap
from service.selection.lineage import (
    LINEAGE_KEY,
    HeldOutOrigin,
    Lineage,
    ModelOrigin,
    ProblemsOrigin,
    SourceOrigin,
    Statistics,
)
from service.selection.operators import FilterCount
from service.selection.spec import SelectionSource, SelectionSpec
from service.shards import write_part

QUESTION = "Ann has 2 plums and gets 3. How many?"


def lineage_of(rows: int, *, license: str | None = None) -> Lineage:
    overlap = Overlap(
        question="a question",
        held_out_set="test",
        held_out_question="a held-out question",
        rule="text",
        shared="a question",
    )
    source = SourceOrigin(
        job_id="job-1",
        job={"problems": "sums", "sampling": {"temperature": 0.8}, "scorers": ["math_answer", "steps"], "seed": 0},
        models=(ModelOrigin(name="small", revision="sha256:0", parameters=196_288, base=None, license=license),),
        problems=ProblemsOrigin(name="sums", fingerprint="sha256:1", num_problems=40),
        versions={"isoflop": "0.1.0"},
        currency="flops_paper",
        limit=2_000,
        spent=1_999,
        usage=Usage(samples=10, flops=2e9, flops_paper=1.9e9, completion_tokens=90),
        unscored=0,
        manifest_sha256="0" * 64,
    )
    return Lineage(
        spec=SelectionSpec(name="sums, right", sources=(SelectionSource(job="job-1"),), held_out=("test",)),
        sources=(source,),
        held_out=(HeldOutOrigin(name="test", num_problems=12, sha256="1" * 64),),
        filters=tuple(FilterCount(name=n, rows=k, rows_by_source=(k,)) for n, k in (("keep", 9), ("rows", rows))),
        contamination=Contamination(compared=40, held_out=12, by_text=1, by_ngram=0, examples=(overlap,)),
        statistics=Statistics(
            rows=rows,
            problems=1,
            completion_tokens=9 * rows,
            rows_by_model={"small": rows},
            correct=rows,
            verified=rows,
        ),
    )


def training_set(
    directory: Path, *, rows: int = 6, license: str | None = None, completions: Sequence[str] = (), prompt: str = ""
) -> Receipt:
    """A set of `rows` completions, or of these."""
    rows = len(completions) or rows
    columns = {
        "prompt": [prompt or f"{QUESTION}\n"] * rows,
        "completion": list(completions) or [f"2+3=5. So {row} #### 5" for row in range(rows)],
        "problem_id": ["p0"] * rows,
        "sample_id": [f"s{row}" for row in range(rows)],
        "job_id": ["job-1"] * rows,
        "source": [0] * rows,
        "model": ["small"] * rows,
        "arm": ["small"] * rows,
        "prompt_id": ["p"] * rows,
        "sampling_id": ["s"] * rows,
        "is_correct": [True] * rows,
        "is_verified": [None if row % 2 else True for row in range(rows)],
        "completion_tokens": [9] * rows,
    }
    lineage = lineage_of(rows, license=license).to_json()
    table = pa.table(columns, schema=SELECTED_SCHEMA.with_metadata({LINEAGE_KEY: lineage.encode()}))
    return write_part(out_dir=directory, part=0, table=table, usage=Usage())
