"""Finished jobs on disk as a selection finds them: problems, sample shards, scores by the real scorer, a manifest."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from service.receipts import Receipt, Usage
from service.records import PROBLEM_SCHEMA, SAMPLE_SCHEMA, ProblemRow, SampleRow
from service.selection.spec import SelectionSource, SelectionSpec
from service.shards import write_part
from service.work import ScoreWork, SelectSource, SelectWork
from workers.scoring import score

RIGHT, OTHER_RIGHT, BAD_STEP, WRONG = "2+3=5. #### 5", "3+2=5. #### 5", "2+3=6. #### 5", "2+4=6. #### 6"
QUESTIONS = ("Ann has 2 plums and gets 3. How many?", "Tom has 2 pens and finds 3. How many?")


def write_problems(path: Path, questions: Sequence[str] = QUESTIONS) -> str:
    rows = [
        ProblemRow(problem_id=f"p{i}", question=question, reference="#### 5", level=None, structure=None)
        for i, question in enumerate(questions)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([asdict(row) for row in rows], schema=PROBLEM_SCHEMA), path)
    return str(path)


@dataclass(kw_only=True)
class FinishedJob:
    """A job's directory under construction; `source()` seals it."""

    directory: Path
    job_id: str = "job-1"
    model: str = "small"
    model_path: str = ""
    questions: Sequence[str] = QUESTIONS
    problems_file: str = ""
    scorers: tuple[str, ...] = ("math_answer", "steps")
    manifest_version: int = 2
    is_sealed: bool = True
    drawn: int = 0
    shards: list[dict[str, Any]] = field(default_factory=list)
    scores: list[dict[str, Any]] = field(default_factory=list)

    @property
    def problems_path(self) -> str:
        return self.problems_file or write_problems(self.directory / "problems.parquet", self.questions)

    def sample(self, problem: int, completion: str, reason: str = "stop") -> SampleRow:
        self.drawn += 1
        sample_id = blake2b(f"{self.job_id}/{self.drawn}".encode(), digest_size=16).hexdigest()
        return SampleRow(
            sample_id=sample_id,
            job_id=self.job_id,
            problem_id=f"p{problem}",
            problem_index=problem,
            model=self.model,
            model_revision="sha256:0",
            prompt_id="prompt",
            sampling_id="sampling",
            engine_version="simulated-1",
            sample_index=self.drawn,
            seed=1,
            attempt="t.1",
            prompt=f"{self.questions[problem]}\n",
            completion=completion,
            finish_reason=reason,
            prompt_tokens=4,
            cached_tokens=0,
            completion_tokens=len(completion),
            flops=1.0,
            flops_paper=1.0,
            error="engine died" if reason == "error" else None,
        )

    def add_shard(self, rows: Sequence[SampleRow], *, is_scored: bool = True) -> Receipt:
        attempt = f"t{len(self.shards)}.1"
        table = pa.Table.from_pylist([asdict(row) for row in rows], schema=SAMPLE_SCHEMA)
        usage = Usage(samples=len(rows), flops=2.0 * len(rows), completion_tokens=9 * len(rows))
        receipt = write_part(out_dir=self.directory / "attempts" / attempt, part=0, table=table, usage=usage)
        entry = {"path": f"attempts/{attempt}/part-00000.parquet", "sha256": receipt.sha256, "rows": receipt.rows}
        self.shards.append(entry | {"attempt": attempt, "part": 0, "model": self.model})
        if is_scored:
            work = ScoreWork(
                model=self.model,
                shard_path=receipt.path,
                shard_sha256=receipt.sha256,
                problems_path=self.problems_path,
                scorers=self.scorers,
            )
            graded = score(work, self.directory / "attempts" / f"s{attempt}")
            entry = {"path": f"attempts/s{attempt}/part-00000.parquet", "sha256": graded.sha256, "rows": graded.rows}
            self.scores.append(entry | {"source_attempt": attempt, "source_part": 0})
        return receipt

    def replace_scores(self, scores: pa.Table) -> None:
        """Puts another file in the place of the first shard's scores."""
        path = self.directory / self.scores[0]["path"]
        path.unlink()
        self.scores[0]["sha256"] = write_part(out_dir=path.parent, part=0, table=scores, usage=Usage()).sha256

    def source(self) -> SelectSource:
        manifest = {
            "manifest_version": self.manifest_version,
            "is_sealed": self.is_sealed,
            "job_id": self.job_id,
            "job": {"name": "a job", "problems": "sums", "scorers": self.scorers, "sampling": {"temperature": 0.8}},
            "models": [
                {
                    "name": self.model,
                    "path": self.model_path,
                    "revision": "sha256:0",
                    "cost": {"parameters": 196_288},
                    "base": None,
                }
            ],
            "problems": {"fingerprint": "sha256:1", "num_problems": len(self.questions)},
            "versions": {"isoflop": "0.1.0"},
            "account": {"currency": "flops", "limit": 100, "spent": 90},
            "shards": self.shards,
            "scores": self.scores,
        }
        problems_path = self.problems_path
        path = self.directory / "manifest.json"
        path.write_text(json.dumps(manifest))
        return SelectSource(job_id=self.job_id, manifest_path=str(path), problems_path=problems_path)


def judging_job(directory: Path, questions_path: Path, said: Sequence[tuple[str, str]], **options: Any) -> FinishedJob:
    """A job whose completions answer the questions about solutions; `said` pairs a solution with one answer."""
    asked = pq.read_table(questions_path)["question"].to_pylist()
    job = FinishedJob(
        directory=directory,
        questions=asked,
        problems_file=str(questions_path),
        **{"job_id": "judge-1", "model": "large", "scorers": ("yes_no",), **options},
    )
    found = [next(at for at, question in enumerate(asked) if f" {text} " in question) for text, _ in said]
    job.add_shard([job.sample(at, answer) for at, (_, answer) in zip(found, said, strict=True)])
    return job


def work_on(
    *jobs: FinishedJob, held_out: Sequence[str] = (), judges: Sequence[FinishedJob] = (), **changes: object
) -> SelectWork:
    shares = changes.pop("shares", None) or [None] * len(jobs)
    sources = [SelectionSource(job=job.job_id, share=share) for job, share in zip(jobs, shares, strict=True)]  # type: ignore[call-overload]
    names = tuple(f"held-out-{number}" for number in range(len(held_out)))
    asked_of = tuple(judge.job_id for judge in judges)
    spec = SelectionSpec(name="set", sources=tuple(sources), held_out=names, judges=asked_of, **changes)  # type: ignore[arg-type]
    return SelectWork(
        spec=spec,
        sources=tuple(job.source() for job in jobs),
        held_out=tuple(held_out),
        judges=tuple(judge.source() for judge in judges),
    )
