"""What can be said of files before they are imported: columns, content, and whether the first rows would do.

Reads the beginning of every file; all of it is read to hash it, after everything that is quickly refused. A wrong
column costs a second and no job; what only the last row shows is found by the import itself, or by a dry run.
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
        matcher: finds the problems of rows.
        notes: what was guessed, and what people should know, a sentence each.
    """

    mapped: Mapped
    matcher: Matcher
    notes: tuple[str, ...]


def look(paths: Sequence[Path], columns: Mapping[str, str], *, problems_path: str, num_problems: int) -> Looked:
    """The files' columns, from their first rows.

    Raises:
        InvalidInput: a file that cannot be read, or columns that do not do.
    """
    heads = [(path, read_head(path)) for path in paths]
    matchers = {by: Matcher.of(problems_path, num_problems, by) for by in MatchBy}
    mapped = map_columns(heads, columns, matchers)
    matcher = matchers[mapped.match_by]
    notes = list(mapped.notes)
    if matcher.num_shared:
        notes.append(
            f"{matcher.num_shared:,} problems have a {mapped.match_by} that another one has: rows go to the first"
        )
    return Looked(mapped=mapped, matcher=matcher, notes=tuple(notes))


def hashed(paths: Sequence[Path]) -> tuple[ImportFile, ...]:
    """The files with their content's hashes; reads all of them.

    Raises:
        InvalidInput: two of the same content.
    """
    files = tuple(ImportFile(name=path.name, sha256=file_sha256(path), num_bytes=path.stat().st_size) for path in paths)
    first_by_hash: dict[str, Path] = {}
    for path, file in zip(paths, files, strict=True):
        first = first_by_hash.setdefault(file.sha256, path)
        if first is not path:
            raise InvalidInput(f"files: {first} and {path} have the same content, allowed: each once")
    return files


def check_beginning(spec: ImportSpec, paths: Sequence[Path], matcher: Matcher) -> None:
    """Refuses what is wrong with the first rows of any file, however many of them may have no problem.

    Raises:
        InvalidInput: see `number`.
    """
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
