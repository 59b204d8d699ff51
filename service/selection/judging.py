"""Judges: models that are asked whether a solution holds, and what their answers say of the samples.

A selection writes its rows as a problem set, one question a sample; a job of any model answers them; another selection
keeps what is judged right. Owns the form of the questions and the rule of the votes. Invariant: a sample and its
question share their id, so judgements find their samples whatever the order. Needs numpy and Arrow.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from service.errors import CorruptFile, InvalidInput
from service.reasoning import ReasoningTags
from service.receipts import Usage
from service.records import PROBLEM_SCHEMA
from service.selection.operators import NO, UNKNOWN, YES, Bools, Ints, Keys
from service.selection.source_job import SourceJob, identities, read_judged

QUESTIONS_FILE = "questions.parquet"
"""Beside a selection's rows: the same rows as a problem set, where its document has `ask`."""
JUDGE_SCORER = "yes_no"
JUDGE_TEMPLATE = """\
Here is a problem and a solution of it.

Problem:
{question}

Solution:
{completion}

Is every step of the solution right, and does each follow from the problem or from an earlier step? A right result
that was reached by a wrong step does not count. Check step by step, then end with one line: "Verdict: yes" if all of
it holds, "Verdict: no" if anything does not."""
_FIELD = re.compile(r"\{(question|completion)\}")

Codes = npt.NDArray[np.int8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Votes:
    """What judging jobs said, by sample.

    Args:
        identity: uint64 [n], ascending, each once; as in `Candidates`.
        yes: int64 [n], how often the sample was found right.
        no: int64 [n], how often not; completions that say neither count for nothing.
    """

    identity: Keys
    yes: Ints
    no: Ints

    def asked(self, identity: Keys) -> Bools:
        """Whether a judge was asked about each sample."""
        return np.isin(identity, self.identity)

    def codes(self, identity: Keys) -> Codes:
        """YES, NO or UNKNOWN for each sample: more than half of the votes, less, or neither (no vote, a tie)."""
        codes = np.full(len(identity), UNKNOWN, dtype=np.int8)
        asked = np.flatnonzero(self.asked(identity))
        at = np.searchsorted(self.identity, identity[asked])
        codes[asked[self.yes[at] > self.no[at]]] = YES
        codes[asked[self.yes[at] < self.no[at]]] = NO
        return codes


def check_template(template: str) -> None:
    """Refuses a template that does not show the solution.

    Raises:
        InvalidInput: a field is missing. Other braces are text, as mathematics is full of them.
    """
    missing = [f"{{{name}}}" for name in ("question", "completion") if f"{{{name}}}" not in template]
    if missing:
        raise InvalidInput(
            f"ask: got a template without {' and '.join(missing)}, allowed: a text with {{question}} and {{completion}}"
        )


def questions(
    template: str, rows: pa.Table, asked: Sequence[str], tags: Callable[[int, str], ReasoningTags]
) -> pa.Table:
    """The problem set that asks of each row whether it is right; the reference of all is yes.

    A judge reads what the step check reads: what follows a thinking model's reasoning, or all where nothing does.

    Args:
        rows: of `SelectedRow`.
        asked: the problem's question of each row.
        tags: source and arm to the tags of reasoning.
    """
    columns_read: list[list[Any]] = [rows[name].to_pylist() for name in ("source", "arm", "prompt", "completion")]
    completions = [
        tags(int(source), str(arm)).without(prompt, text)[1] or text
        for source, arm, prompt, text in zip(*columns_read, strict=True)
    ]
    texts = [
        _FIELD.sub(lambda field, filled={"question": question, "completion": completion}: filled[field[1]], template)
        for question, completion in zip(asked, completions, strict=True)
    ]
    columns = {
        "problem_id": rows["sample_id"],
        "question": pa.array(texts, pa.large_string()),
        "reference": pa.repeat("yes", len(texts)),
        "level": pa.nulls(len(texts), pa.int64()),
        "structure": pa.nulls(len(texts), pa.string()),
    }
    return pa.table([columns[name] for name in PROBLEM_SCHEMA.names], schema=PROBLEM_SCHEMA)


def read_votes(jobs: Sequence[SourceJob], question_paths: Sequence[str]) -> tuple[Votes, list[Usage], list[int]]:
    """What finished judging jobs said, all together; and of each what it used, and how many answers nobody has read.

    Args:
        question_paths: of each job, the questions that it answered.

    Raises:
        CorruptFile: a file is not the one that was committed, or cannot be read.
    """
    asked: list[Keys] = [np.zeros(0, dtype=np.uint64)]
    words: list[Ints] = [np.zeros(0, dtype=np.int64)]
    usages, unscored = [Usage() for _ in jobs], [0 for _ in jobs]
    for number, (job, path) in enumerate(zip(jobs, question_paths, strict=True)):
        ids = _asked(path, job.num_problems)
        for judged in read_judged(job, scorer=JUDGE_SCORER, with_answers=True):
            usages[number] += judged.usage
            unscored[number] += int((~judged.is_scored).sum())
            said = np.array([1 if word == "yes" else -1 if word == "no" else 0 for word in judged.answer.to_pylist()])
            asked.append(ids[judged.problem])
            words.append(said.astype(np.int64))
    identity, of_vote = np.unique(np.concatenate(asked), return_inverse=True)
    word = np.concatenate(words)
    yes = np.bincount(of_vote[word > 0], minlength=len(identity))
    no = np.bincount(of_vote[word < 0], minlength=len(identity))
    return Votes(identity=identity, yes=yes.astype(np.int64), no=no.astype(np.int64)), usages, unscored


def _asked(path: str, num_problems: int) -> Keys:
    try:
        ids = pq.read_table(path, columns=["problem_id"])["problem_id"]
    except (OSError, pa.ArrowInvalid) as error:
        raise CorruptFile(f"{path}: cannot read the questions: {error}") from error
    if len(ids) < num_problems:
        raise CorruptFile(f"{path}: {num_problems} questions were asked, it has {len(ids)}")
    return identities(ids.slice(0, num_problems))
