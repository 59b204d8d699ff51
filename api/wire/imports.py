"""Imports as they come in and go out."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, model_validator
from pydantic_core import PydanticCustomError

from api.wire.base import InputModel, Line, Name, PathText
from api.wire.jobs import JobOut
from api.wire.prompt_document import PromptDocument
from api.wire.sampling_document import SamplingDocument
from service.importing.spec import DEFAULT_UNMATCHED

ColumnName = Annotated[str, Field(min_length=1, max_length=200)]
Ours = Literal[
    "problem_id", "question", "completion", "prompt", "num_tokens", "sample_index", "temperature", "finish_reason"
]


class ImportDocument(InputModel):
    """Completions that exist already, and what they are."""

    files: list[PathText] = Field(
        min_length=1, max_length=1000, description="JSONL or Parquet on the service's machine, in order."
    )
    problems: Name = Field(description="The registered problem set they answer.", examples=["gsm-mini/train"])
    model: Name | None = Field(
        default=None, description="The registered model that wrote them: its tokenizer counts, its shape prices."
    )
    model_name: Line | None = Field(
        default=None, description="Or the name of one that is not registered: tokens are estimated, FLOPs unknown."
    )
    columns: dict[Ours, ColumnName] = Field(
        default_factory=dict, description="The files' column of each of ours; what is left out is guessed."
    )
    name: Line | None = Field(default=None, description="For people; made from files and problems without one.")
    prompt: PromptDocument = Field(
        default_factory=PromptDocument, description="How the prompts were made, if the files have no column of them."
    )
    sampling: SamplingDocument | None = Field(
        default=None, description="How the completions were drawn; unknown without this and a column `temperature`."
    )
    scorers: list[Annotated[str, Field(max_length=100)]] = Field(
        default_factory=lambda: ["math_answer"], max_length=8, description="As in a job."
    )
    allow_unmatched: float = Field(
        default=DEFAULT_UNMATCHED,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Share of rows that may belong to no problem; they are left out and counted. More is refused.",
    )
    allow_empty: bool = Field(
        default=False, description="Make error rows of empty completions; without this they are refused."
    )

    @model_validator(mode="after")
    def _check_whole(self) -> Self:
        given = [name for name in ("model", "model_name") if getattr(self, name) is not None]
        if len(given) != 1:
            raise PydanticCustomError(
                "one_model", "exactly one of model, model_name", {"got": ", ".join(given) or "none of them"}
            )
        for name in ("files", "scorers"):
            values = getattr(self, name)
            if len(set(values)) != len(values):
                raise PydanticCustomError("repeated", "{name} that differ", {"name": name, "got": ", ".join(values)})
        if "problem_id" in self.columns and "question" in self.columns:
            raise PydanticCustomError(
                "two_keys", "one of columns.problem_id and columns.question", {"got": "both of them"}
            )
        return self


class ImportOut(JobOut):
    """The job that an import is."""

    is_new: bool = Field(description="Whether it was submitted by this request; the same import is the same job.")
    notes: list[str] = Field(description="What was guessed, a sentence each.")


class ImportPlanOut(BaseModel):
    """What an import would be: every row was looked at, and nothing is stored."""

    is_dry_run: bool = True
    document: dict[str, object]
    num_problems: int
    problems_fingerprint: str
    notes: list[str]
    rows: int = Field(description="Samples it would have.")
    problems_with_samples: int
    unmatched: int = Field(description="Rows of no problem, which would be left out.")
    empty: int = Field(description="Rows without a completion, which would carry an error.")
    repeats: int = Field(description="Rows with a completion that another sample of the problem has too.")
