"""`isoflop grade`: judge the completions of a JSONL file without a service.

Invariant: the output appears whole or not at all; a malformed row stops the run with its number before anything is
written under the output's name. Rows stream, so a file may be larger than memory. Of workers it imports the judge of
formulas alone.
"""

import contextlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from service.errors import InvalidInput
from service.scoring import Graded, Scorer, scorer_named, with_judge
from workers.math_pool import MathPool

_FINISH_REASONS = ("stop", "length", "error")
_MAX_ROW_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class GradeSummary:
    """What was graded.

    Attributes:
        rows: number of rows.
        verdicts: rows by verdict; empty for a scorer that judges only reasoning.
        steps: rows by state of their reasoning; empty for a scorer that judges only answers.
        output: the file written.
    """

    rows: int
    verdicts: dict[str, int]
    steps: dict[str, int]
    output: Path


def grade_file(*, scorer: str, input: Path, output: Path) -> GradeSummary:
    """Grade each row of `input` and write it, with what the scorer found added, to `output`.

    A row is a JSON object with `completion` and `reference` (text, or a number for the reference); `finish_reason`
    ("stop" by default), `question` and `structure` are used where given, and other keys are kept. `verdict` and
    `predicted_answer`, or `steps`, are added or replaced, together with `explanation`. Blank lines are skipped.

    Args:
        scorer: name of a registered scorer.
        input: JSONL file in UTF-8.
        output: JSONL file to write; may be `input`.

    Raises:
        UnknownName: if no scorer has this name.
        InvalidInput: if a file cannot be opened or a row is malformed; the message gives its number, counted from 1.
    """
    unjudged = scorer_named(scorer)
    verdicts: Counter[str] = Counter()
    steps: Counter[str] = Counter()
    num_rows = 0
    with MathPool() as pool, _opened(input) as source, _written_whole(output) as target:
        judge = with_judge(unjudged, pool)
        for number, row in _rows(source, name=str(input)):
            graded = _graded(judge, row, where=f"{input}, row {number}")
            target.write(_json_line(row | _additions(graded)))
            num_rows += 1
            if graded.verdict is not None:
                verdicts[graded.verdict.value] += 1
            if graded.steps is not None:
                steps[graded.steps.value] += 1
    return GradeSummary(rows=num_rows, verdicts=dict(verdicts), steps=dict(steps), output=output)


def _rows(source: BinaryIO, *, name: str) -> Iterator[tuple[int, dict[str, object]]]:
    number = 0
    while line := source.readline(_MAX_ROW_BYTES + 1):
        number += 1
        if len(line) > _MAX_ROW_BYTES:
            raise InvalidInput(f"{name}, row {number}: longer than {_MAX_ROW_BYTES:,} bytes")
        if line.isspace():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"{name}, row {number}: not JSON ({error}); got {_shown(line)}") from error
        if not isinstance(row, dict):
            raise InvalidInput(f"{name}, row {number}: a row is a JSON object, got {_shown(line)}")
        yield number, cast("dict[str, object]", row)


def _graded(judge: Scorer, row: Mapping[str, object], *, where: str) -> Graded:
    finish_reason = _text(row, "finish_reason", where=where, default="stop")
    if finish_reason not in _FINISH_REASONS:
        raise InvalidInput(f"{where}: finish_reason is {finish_reason!r}; allowed: {', '.join(_FINISH_REASONS)}")
    structure = row.get("structure")
    reference = row.get("reference")
    if isinstance(reference, int | float) and not isinstance(reference, bool):
        row = {**row, "reference": str(reference)}
    return judge.grade(
        completion=_text(row, "completion", where=where),
        reference=_text(row, "reference", where=where),
        finish_reason=finish_reason,
        question=_text(row, "question", where=where, default=""),
        structure=structure if isinstance(structure, str) or structure is None else json.dumps(structure),
    )


def _text(row: Mapping[str, object], key: str, *, where: str, default: str | None = None) -> str:
    if row.get(key) is None and default is not None:
        return default
    if key not in row:
        raise InvalidInput(f"{where}: {key!r} is missing; the row has {', '.join(map(repr, sorted(row))) or 'no keys'}")
    value = row[key]
    if not isinstance(value, str):
        raise InvalidInput(f"{where}: {key!r} must be text, got {type(value).__name__} {_shown(repr(value).encode())}")
    return value


def _additions(graded: Graded) -> dict[str, object]:
    added: dict[str, object] = {"explanation": graded.explanation}
    if graded.verdict is not None:
        added |= {"verdict": graded.verdict.value, "predicted_answer": graded.predicted_answer}
    if graded.steps is not None:
        added |= {"steps": graded.steps.value}
    return added


def _json_line(row: dict[str, object]) -> bytes:
    try:
        return (json.dumps(row, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:
        # a lone surrogate has no UTF-8 form, but its escape is what the input had
        return (json.dumps(row) + "\n").encode()


def _shown(text: bytes) -> str:
    return repr(text[:80].decode("utf-8", "replace"))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        source = path.open("rb")
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from error
    with source:
        yield source


@contextlib.contextmanager
def _written_whole(path: Path) -> Iterator[BinaryIO]:
    """A file beside `path` that takes its name once all is written and on disk."""
    if path.exists() and not path.is_file():
        # a directory cannot be replaced, and a device must not be
        raise InvalidInput(f"cannot write {path}: not a regular file; allowed: a file, or the name of a new one")
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    except OSError as error:
        raise InvalidInput(f"cannot write {path}: {error.strerror}") from error
    partial = Path(name)
    try:
        with os.fdopen(handle, "wb") as target:
            yield target
            target.flush()
            os.fsync(target.fileno())
        partial.chmod(0o666 & ~_umask())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _umask() -> int:
    """The process's umask, which can only be read by setting it; mkstemp ignores it and makes files private."""
    umask = os.umask(0o077)
    os.umask(umask)
    return umask
