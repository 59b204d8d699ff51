"""What an import is: which files, read how, by which model. Part of a job's document, so it is immutable.

Owns the names of the columns an import knows. Invariant: it names no path of a machine, because a job's document goes
into lineages that are published; where the files lie is in `service.jobs.Resolved`.
"""

from dataclasses import dataclass
from enum import StrEnum

COLUMNS = (
    "problem_id",
    "question",
    "completion",
    "prompt",
    "num_tokens",
    "sample_index",
    "temperature",
    "finish_reason",
)
"""What a column of a file can be to an import."""
DEFAULT_UNMATCHED = 0.05
"""Share of rows without a problem up to which an import goes on: a few stray rows are normal, more is another set."""


class MatchBy(StrEnum):
    """What tells which problem a row belongs to."""

    id = "id"
    question = "question"


class Tokens(StrEnum):
    """Where token counts come from."""

    tokenizer = "tokenizer"
    column = "column"
    estimate = "estimate"


TOKEN_WORDS = {
    Tokens.tokenizer: "counted with the model's tokenizer",
    Tokens.column: "of completions as a column says, of prompts counted or estimated",
    Tokens.estimate: "estimated, one for 4 characters",
}
"""Where token counts come from, for people."""


class Sampling(StrEnum):
    """What is known of how the completions were drawn."""

    stated = "stated"
    column = "column"
    unknown = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportFile:
    """A file that was imported, by its name without directories and its content."""

    name: str
    sha256: str
    num_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportColumn:
    """A column of the files.

    Args:
        ours: what it is, a name in `COLUMNS`.
        theirs: its name in the files.
        kind: what it holds, as an error would call it, e.g. "a list of texts".
    """

    ours: str
    theirs: str
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportSpec:
    """How completions in files become samples.

    Args:
        columns: those that are read, in the order of `COLUMNS`.
        model: the model they are said to be by; its revision is unknown unless it is in the catalogue.
        is_known_model: whether the catalogue has it, so that tokens can be counted and priced.
        max_unmatched: share of rows that may have no problem; more refuses the import.
        allow_empty: whether an empty completion becomes an error row; otherwise it refuses the import.
    """

    files: tuple[ImportFile, ...]
    columns: tuple[ImportColumn, ...]
    match_by: MatchBy
    model: str
    is_known_model: bool
    tokens: Tokens
    sampling: Sampling
    max_unmatched: float = DEFAULT_UNMATCHED
    allow_empty: bool = False

    def column(self, ours: str) -> str | None:
        """The file's column for one of `COLUMNS`, if there is one."""
        return next((column.theirs for column in self.columns if column.ours == ours), None)
