"""Which column of a file is what: as people say, else guessed from names that are common, and told.

Owns the names that are guessed and the order in which they are tried. Invariant: a guess is a sentence that people can
read; what a column must hold is checked on the first rows of every file before anything is stored.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from service.errors import InvalidInput
from service.importing.matching import Matcher
from service.importing.reading import Head
from service.importing.spec import COLUMNS, ImportColumn, MatchBy

GUESSES: dict[str, tuple[str, ...]] = {
    "problem_id": ("problem_id", "question_id", "task_id", "id", "idx", "index"),
    "question": ("question", "problem", "instruction", "query", "input", "prompt"),
    "completion": (
        "completion",
        "completions",
        "response",
        "responses",
        "generation",
        "generations",
        "output",
        "outputs",
        "model_output",
        "samples",
        "text",
        "solution",
    ),
    "prompt": ("prompt",),
    "num_tokens": ("num_tokens", "completion_tokens", "output_tokens", "num_output_tokens"),
    "sample_index": ("sample_index", "sample_idx"),
    "temperature": ("temperature",),
    "finish_reason": ("finish_reason", "stop_reason"),
}
"""Names that a column is looked for under, the most telling one first."""
_ALLOWED: dict[str, tuple[str, ...]] = {
    "problem_id": ("a text", "a whole number"),
    "question": ("a text",),
    "completion": ("a text", "a list of texts"),
    "prompt": ("a text",),
    "num_tokens": ("a whole number", "a list of whole numbers"),
    "sample_index": ("a whole number", "a list of whole numbers"),
    "temperature": ("a number", "a whole number"),
    "finish_reason": ("a text", "a list of texts"),
}
Files = Sequence[tuple[Path, Head]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapped:
    """What the columns of the files are.

    Args:
        columns: those that are read, in the order of `COLUMNS`.
        notes: what was guessed, a sentence each.
    """

    columns: tuple[ImportColumn, ...]
    match_by: MatchBy
    notes: tuple[str, ...]


def map_columns(files: Files, stated: Mapping[str, str], matchers: Mapping[MatchBy, Matcher]) -> Mapped:
    """The columns as stated, and guesses for the others.

    Raises:
        InvalidInput: a column that does not exist, holds what it must not, or cannot be guessed; or no row of the
            beginning belongs to a problem.
    """
    if unknown := sorted(set(stated) - set(COLUMNS)):
        raise InvalidInput(f"columns: got {', '.join(unknown)}, allowed: {', '.join(COLUMNS)}")
    common = [name for name in files[0][1].columns if all(name in head.columns for _, head in files)]
    for ours, theirs in stated.items():
        for path, head in files:
            if theirs not in head.columns:
                raise InvalidInput(
                    f"columns.{ours}: {path.name} has no column {theirs!r} in its first {len(head.rows):,} rows; "
                    f"allowed: {', '.join(head.columns)}"
                )
    columns, notes = dict(stated), list[str]()
    _guess_completion(columns, notes, common, files)
    match_by = _guess_problem(columns, notes, common, files, matchers)
    for ours in ("prompt", "sample_index", "temperature", "finish_reason", "num_tokens"):
        _guess(columns, notes, ours, [name for name in common if _is_allowed(ours, name, files)])
    found = tuple(
        ImportColumn(ours=ours, theirs=columns[ours], kind=_kind(ours, columns[ours], files))
        for ours in COLUMNS
        if ours in columns
    )
    return Mapped(columns=found, match_by=match_by, notes=tuple(notes))


def _guess(columns: dict[str, str], notes: list[str], ours: str, names: Iterable[str]) -> None:
    found = [name for name in GUESSES[ours] if name in names]
    if ours in columns or not found:
        return
    columns[ours] = found[0]
    others = f" (not taken: {', '.join(found[1:])})" if found[1:] else ""
    notes.append(f"{ours} is the column {found[0]!r}, guessed from its name{others}")


def _guess_completion(columns: dict[str, str], notes: list[str], common: Sequence[str], files: Files) -> None:
    taken = set(columns.values())
    _guess(columns, notes, "completion", [name for name in common if name not in taken])
    if "completion" not in columns:
        raise InvalidInput(
            f"columns.completion: no column of {files[0][0].name} has a name that is known for completions "
            f"({', '.join(GUESSES['completion'])}); allowed: one of {', '.join(files[0][1].columns)}"
        )


def _guess_problem(
    columns: dict[str, str],
    notes: list[str],
    common: Sequence[str],
    files: Files,
    matchers: Mapping[MatchBy, Matcher],
) -> MatchBy:
    """Decides by which column rows find their problems: the one that finds the most of the first rows."""
    for ours, by in (("problem_id", MatchBy.id), ("question", MatchBy.question)):
        if ours in columns:
            columns.pop("question" if ours == "problem_id" else "problem_id", None)
            return by
    found: list[tuple[int, MatchBy, str]] = []
    for by, ours in ((MatchBy.id, "problem_id"), (MatchBy.question, "question")):
        found += [
            (_count_matches(matchers[by], name, files), by, name)
            for name in GUESSES[ours]
            if name in common and name != columns["completion"] and _is_allowed(ours, name, files)
        ]
    total = sum(len(head.rows) for _, head in files)
    if not any(number for number, _, _ in found):
        raise InvalidInput(_no_match(found, matchers, total, files))
    # questions count for more than ids where both find as many: numbers of rows look like ids of problems
    number, by, name = max(
        found, key=lambda each: (each[0], each[1] is MatchBy.question and _disagree(found, files, matchers))
    )
    columns["problem_id" if by is MatchBy.id else "question"] = name
    notes.append(
        f"problems are found by {'their ids' if by is MatchBy.id else 'their questions'} in the column {name!r}: "
        f"{number:,} of the first {total:,} rows belong to one"
    )
    return by


def _disagree(found: Sequence[tuple[int, MatchBy, str]], files: Files, matchers: Mapping[MatchBy, Matcher]) -> bool:
    """Whether the best ids and the best questions name different problems in some of the first rows."""
    best = {by: max((each for each in found if each[1] is by), default=None) for by in MatchBy}
    ids, questions = best[MatchBy.id], best[MatchBy.question]
    if ids is None or questions is None:
        return False
    for _, head in files:
        one, other = (matchers[by].find(_values(name, head)) for _, by, name in (ids, questions))
        if (one != other).any():
            return True
    return False


def _values(name: str, head: Head) -> pa.Array:
    return pa.array([None if (value := row.get(name)) is None else str(value) for row in head.rows], type=pa.string())


def _count_matches(matcher: Matcher, name: str, files: Files) -> int:
    return sum(int((matcher.find(_values(name, head)) >= 0).sum()) for _, head in files)


def _no_match(
    found: Sequence[tuple[int, MatchBy, str]], matchers: Mapping[MatchBy, Matcher], total: int, files: Files
) -> str:
    path, head = files[0]
    if not found:
        names = ", ".join(dict.fromkeys((*GUESSES["problem_id"], *GUESSES["question"])))
        return (
            f"columns.problem_id: no column of {path.name} has a name that is known for problems ({names}); allowed: "
            f"problem_id or question as one of {', '.join(head.columns)}"
        )
    tried = ", ".join(f"{name} (e.g. {str(head.rows[0].get(name))[:60]!r})" for _, _, name in found)
    return (
        f"none of the first {total:,} rows belongs to a problem: got {tried}; allowed: ids such as "
        f"{', '.join(matchers[MatchBy.id].examples())} or questions such as "
        f"{', '.join(matchers[MatchBy.question].examples(1))}"
    )


def _is_allowed(ours: str, name: str, files: Files) -> bool:
    kinds = {kind for _, head in files for kind in head.kinds[name]}
    return bool(kinds) and kinds <= set(_ALLOWED[ours])


def _kind(ours: str, theirs: str, files: Files) -> str:
    """What a column holds, the same in all files.

    Raises:
        InvalidInput: values that it must not hold, or values of several kinds.
    """
    kinds = {kind for _, head in files for kind in head.kinds[theirs]}
    if kinds == {"a number", "a whole number"}:
        kinds = {"a number"}
    if len(kinds) == 1 and (kind := next(iter(kinds))) in _ALLOWED[ours]:
        return "a number" if ours == "temperature" else kind
    got = " and ".join(sorted(kinds)) or "nothing but nulls"
    raise InvalidInput(f"columns.{ours}: column {theirs!r} holds {got}, allowed: {' or '.join(_ALLOWED[ours])}")
