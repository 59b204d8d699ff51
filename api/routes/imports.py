"""/v1/imports: completions that exist already become a finished job."""

from typing import Annotated

import numpy as np
from fastapi import APIRouter, Query, Response

from api.context import Context, path_under_roots
from api.resolve_import import import_document, to_import
from api.routes.jobs import IdempotencyKey, job_out
from api.wire.imports import ImportDocument, ImportOut, ImportPlanOut
from service.importing.look import check_all
from service.importing.numbering import LEFT_OUT

router = APIRouter(prefix="/v1/imports", tags=["jobs"])


@router.post(
    "",
    status_code=201,
    responses={200: {"model": ImportPlanOut | ImportOut, "description": "A dry run, or the job it is already."}},
)
def submit_import(
    context: Context,
    response: Response,
    body: ImportDocument,
    idempotency_key: IdempotencyKey = None,
    dry_run: Annotated[bool, Query(description="Look at every row and say what would be; nothing is stored.")] = False,
) -> ImportOut | ImportPlanOut:
    """Imports files under the roots. Files, columns and first rows are checked here; all rows are before any counts.

    The same files, columns, problems and model are the same job, unless that one failed or was cancelled.
    """
    paths = [path_under_roots(context.settings, text, field="files") for text in body.files]
    made = to_import(body, paths, context.store)
    spec, resolved = made.spec, made.resolved
    assert spec.imported is not None
    if dry_run:
        response.status_code = 200
        found = check_all(
            spec.imported, paths, problems_path=resolved.problems_path, num_problems=resolved.num_problems
        )
        return ImportPlanOut(
            document=import_document(spec),
            num_problems=resolved.num_problems,
            problems_fingerprint=resolved.problems_fingerprint,
            notes=list(made.notes),
            rows=len(found.problem) - found.num_unmatched,
            problems_with_samples=len(np.unique(found.problem[found.problem != LEFT_OUT])),
            unmatched=found.num_unmatched,
            empty=found.num_empty,
            repeats=found.num_repeats,
        )
    job, is_new = context.store.jobs.submit_import(spec, resolved, idempotency_key=idempotency_key)
    context.wake()
    response.status_code = 201 if is_new else 200
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return ImportOut(**job_out(context, job).model_dump(), is_new=is_new, notes=list(made.notes))
