"""An import's document becomes a job: files looked at, columns guessed, names checked. And back, for people.

All that can be wrong with names, columns and first rows is said here, before anything is stored. Must not import
workers.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api.resolve import document_of
from api.resolve_parts import check_scorers, prompt_document, sampling_document, to_prompt, to_sampling
from api.wire.imports import ImportDocument
from service import wording
from service.currency import Budget, Currency
from service.errors import InvalidInput
from service.forward_cost import UNKNOWN_COST
from service.importing.look import Looked, check_beginning, hashed, look
from service.importing.spec import ImportSpec, Sampling, Tokens
from service.jobs import JobSpec, Resolved
from service.models import ModelSpec
from service.sampling import SamplingSpec
from service.store import Store

UNKNOWN_REVISION = "unknown"
_TOKENS = {
    Tokens.tokenizer: "tokens are counted with the model's tokenizer",
    Tokens.column: "tokens of completions are those of the column {column!r}",
    Tokens.estimate: "tokens are estimated, one for 4 characters, for the model is not registered",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """An import that may be submitted.

    Args:
        notes: what was guessed, a sentence each.
    """

    spec: JobSpec
    resolved: Resolved
    notes: tuple[str, ...]


def to_import(document: ImportDocument, paths: Sequence[Path], store: Store) -> Import:
    """The job that the document asks for.

    Args:
        paths: the document's files, under the roots.

    Raises:
        UnknownName: a problem set, model or scorer that does not exist.
        InvalidInput: files, columns or first rows that do not do, or fields that contradict each other.
    """
    problems = store.catalogue.problem_set(document.problems)
    model = _model(document, store)
    found = look(
        paths,
        {str(ours): theirs for ours, theirs in document.columns.items()},
        problems_path=problems.path,
        num_problems=problems.num_problems,
    )
    imported = _spec(document, found, model)
    names = ", ".join(path.name for path in paths)
    spec = JobSpec(
        name=document.name or f"{names} by {model.name}"[:200],
        problems=document.problems,
        models=(model.name,),
        budget=Budget(currency=Currency.samples, limit=0),
        prompt=to_prompt(document.prompt),
        sampling=SamplingSpec() if document.sampling is None else to_sampling(document.sampling),
        scorers=tuple(document.scorers),
        imported=imported,
    )
    check_scorers(spec, problems.num_problems)
    if spec.prompt.use_chat_template and not imported.is_known_model:
        raise InvalidInput("prompt.use_chat_template: got true, allowed: false for a model that is not registered")
    check_beginning(imported, paths, found.matcher)
    spec = dataclasses.replace(spec, imported=dataclasses.replace(imported, files=hashed(paths)))
    resolved = Resolved(
        models=(model,),
        problems_path=problems.path,
        num_problems=problems.num_problems,
        problems_fingerprint=problems.fingerprint,
        import_paths=tuple(map(str, paths)),
    )
    return Import(spec=spec, resolved=resolved, notes=(*found.notes, *_notes(imported)))


def _model(document: ImportDocument, store: Store) -> ModelSpec:
    if document.model is not None:
        return store.catalogue.model(document.model)
    name = str(document.model_name)
    if any(name == model.name for model in store.catalogue.models()):
        raise InvalidInput(f"model_name: got {name!r}, which is registered; give it as `model`")
    return ModelSpec(name=name, path="", revision=UNKNOWN_REVISION, context_len=0, cost=UNKNOWN_COST)


def _spec(document: ImportDocument, found: Looked, model: ModelSpec) -> ImportSpec:
    """What is imported, but for the files: reading all of them waits until nothing else is wrong."""
    columns = found.mapped.columns
    names = {column.ours for column in columns}
    if document.sampling is not None and "temperature" in names:
        columns = tuple(column for column in columns if column.ours != "temperature")
        if "temperature" in document.columns:
            raise InvalidInput("sampling: got sampling and columns.temperature, allowed: one of them")
    is_known = bool(model.path)  # of an endpoint the tokenizer may be here, or not
    if "num_tokens" in document.columns or (not is_known and "num_tokens" in names):
        tokens = Tokens.column
    else:
        tokens = Tokens.tokenizer if is_known else Tokens.estimate
        columns = tuple(column for column in columns if column.ours != "num_tokens")
    sampling = Sampling.unknown
    if document.sampling is not None:
        sampling = Sampling.stated
    elif "temperature" in names:
        sampling = Sampling.column
    return ImportSpec(
        files=(),
        columns=columns,
        match_by=found.mapped.match_by,
        model=model.name,
        is_known_model=is_known,
        tokens=tokens,
        sampling=sampling,
        max_unmatched=document.allow_unmatched,
        allow_empty=document.allow_empty,
    )


def _notes(spec: ImportSpec) -> tuple[str, ...]:
    """What people should know of numbers and texts that the files do not have."""
    notes = [_TOKENS[spec.tokens].format(column=spec.column("num_tokens"))]
    if not spec.is_known_model:
        notes.append(f"FLOPs are unknown, for {spec.model} is not registered")
    if spec.column("prompt") is None:
        notes.append("no column has prompts: they are made from the questions, as a job with this `prompt` would")
    if spec.column("finish_reason") is None:
        notes.append("no column says why completions ended: none counts as cut")
    if spec.sampling is Sampling.unknown:
        notes.append("how the completions were drawn is unknown: no `sampling` and no column of temperatures")
    return tuple(notes)


def job_document(spec: JobSpec, num_problems: int) -> dict[str, Any]:
    """The resolved document of any job: of one that drew its samples, in the form of a job file."""
    return document_of(spec, num_problems) if spec.imported is None else import_document(spec)


def import_document(spec: JobSpec) -> dict[str, Any]:
    """An import as people read it: what a job of samples that were drawn would say, and where these come from."""
    assert spec.imported is not None
    imported = spec.imported
    return {
        "name": spec.name,
        "problems": spec.problems,
        "models": list(spec.models),
        "prompt": prompt_document(spec.prompt) if imported.column("prompt") is None else None,
        "sampling": sampling_document(spec.sampling) if imported.sampling is Sampling.stated else None,
        "scorers": list(spec.scorers),
        "imported": {
            "files": [
                {"name": file.name, "sha256": file.sha256, "num_bytes": file.num_bytes} for file in imported.files
            ],
            "columns": {column.ours: column.theirs for column in imported.columns},
            "match_by": imported.match_by.value,
            "is_known_model": imported.is_known_model,
            "tokens": imported.tokens.value,
            "sampling": imported.sampling.value,
            "allow_unmatched": imported.max_unmatched,
            "allow_empty": imported.allow_empty,
        },
    }


def source_words(spec: ImportSpec) -> str:
    """`old.jsonl (sha256 0a1b2c3d4e5f…, 1.2 MB)`: where the samples of an import come from."""
    return ", ".join(
        f"{file.name} (sha256 {file.sha256[:16]}…, {wording.count(file.num_bytes)} bytes)" for file in spec.files
    )
