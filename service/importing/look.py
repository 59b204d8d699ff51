"""What can be said of files before they are imported: columns, content, and whether the first rows would do.

Reads the beginning of every file and hashes all of it. Everything that the first rows show is refused here, so that a
wrong column costs a second and no job; what only the last row shows is found by the import itself, or by a dry run.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from service.errors import InvalidInput
from service.importing.columns import Mapped, map_columns
from service.importing.matching import Matcher
from service.importing.numbering import Numbered, number
from service.importing.reading import column_types, read_head
from service.importing.rows import Samples, read_samples
from service.importing.spec import ImportFile, ImportSpec, MatchBy
from service.shards import file_sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What was found.

    Args:
        notes: what was guessed, and what people should know, a sentence each.
    """

    files: tuple[ImportFile, ...]
    mapped: Mapped
    notes: tuple[str, ...]


def look(paths: Sequence[Path], columns: Mapping[str, str], *, problems_path: str, num_problems: int) -> Looked:
    """The files' content and columns.

    Raises:
        InvalidInput: a file that cannot be read, two of the same content, or columns that do not do.
    """
    heads = [(path, read_head(path)) for path in paths]
    matchers = {by: Matcher.of(problems_path, num_problems, by) for by in MatchBy}
    mapped = map_columns(heads, columns, matchers)
    files = tuple(ImportFile(name=path.name, sha256=file_sha256(path), num_bytes=path.stat().st_size) for path in paths)
    for position, file in enumerate(files):
        for before, other in zip(paths, files[:position], strict=False):
            if other.sha256 == file.sha256:
                raise InvalidInput(f"files: {before} and {paths[position]} have the same content, allowed: each once")
    notes = list(mapped.notes)
    if num_shared := matchers[mapped.match_by].num_shared:
        notes.append(f"{num_shared:,} problems have a {mapped.match_by} that another one has: rows go to the first")
    return Looked(files=files, mapped=mapped, notes=tuple(notes))


def check_beginning(spec: ImportSpec, paths: Sequence[Path], *, problems_path: str, num_problems: int) -> None:
    """Refuses what is wrong with the first rows of any file, however many of them may have no problem.

    Raises:
        InvalidInput: see `number`.
    """
    matcher = Matcher.of(problems_path, num_problems, spec.match_by)
    generous = dataclasses.replace(spec, max_unmatched=1.0)
    number(_batches(spec, paths, most=1), generous, matcher)


def check_all(spec: ImportSpec, paths: Sequence[Path], *, problems_path: str, num_problems: int) -> Numbered:
    """What every row would become; for a dry run.

    Raises:
        InvalidInput: see `number`.
    """
    matcher = Matcher.of(problems_path, num_problems, spec.match_by)
    return number(_batches(spec, paths), spec, matcher)


def _batches(spec: ImportSpec, paths: Sequence[Path], *, most: int | None = None) -> Iterator[Samples]:
    columns, types = {column.ours: column.theirs for column in spec.columns}, column_types(spec)
    for path in paths:
        yield from islice(read_samples(path, columns, types), most)
