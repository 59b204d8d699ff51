"""Errors as application/problem+json (RFC 9457): what happened, what was given, what is allowed.

The only place where an error becomes a response. A `type` is `urn:isoflop:problem:<slug>` with the slug of the error
class, which the client turns back into the same class.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from service.errors import BudgetExceeded, IsoflopError, UnknownName

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:isoflop:problem:"
_LONGEST_GOT = 120


class FieldProblem(BaseModel):
    """What is wrong with one field."""

    field: str = Field(description="Path of the field, e.g. `budget.flops`; `query.limit` for parameters.")
    got: str = Field(description="What was given, shortened.")
    allowed: str = Field(description="What would have been accepted.")


class ProblemDocument(BaseModel):
    """An error. `errors` is there when fields of a request were refused."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="`urn:isoflop:problem:` and a word that stands for the kind of error.")
    title: str
    status: int
    detail: str = Field(description="What, got, allowed, next step.")
    instance: str = Field(description="Path of the request.")
    kind: str | None = Field(default=None, description="What was looked up, for unknown names.")
    got: str | int | None = None
    allowed: list[str] | int | None = None
    errors: list[FieldProblem] | None = None


def slug(error: type[IsoflopError]) -> str:
    """`UnknownName` becomes `unknown-name`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", error.__name__).lower()


def problem(
    *, status: int, title: str, detail: str, instance: str, kind: str = "error", **members: object
) -> JSONResponse:
    """A problem response. `kind` is the slug in `type`; further members are added as they are."""
    document = {"type": TYPE_PREFIX + kind, "title": title, "status": status, "detail": detail, "instance": instance}
    return JSONResponse(document | members, status_code=status, media_type=MEDIA_TYPE)


def install_error_handlers(app: FastAPI) -> None:
    """Makes every error of the application a problem document."""
    app.add_exception_handler(IsoflopError, _on_isoflop_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(Exception, _on_bug)


def response_for(error: IsoflopError, *, instance: str, status: int | None = None) -> JSONResponse:
    """The response for an error of the project; `status` overrides the error's own."""
    members: dict[str, object] = {}
    if isinstance(error, UnknownName):
        members = {"kind": error.kind, "got": error.got, "allowed": error.allowed}
    elif isinstance(error, BudgetExceeded):
        members = {"account": error.account, "got": error.asked, "allowed": error.available}
    document = {
        "type": TYPE_PREFIX + slug(type(error)),
        "title": error.title,
        "status": status or error.status,
        "detail": str(error),
        "instance": instance,
    }
    return JSONResponse(document | members, status_code=status or error.status, media_type=MEDIA_TYPE)


def field_problems(errors: Sequence[Mapping[str, Any]]) -> list[FieldProblem]:
    """Errors of pydantic as field, got, allowed."""
    return [_field_problem(error) for error in errors]


def field_text(problems: Sequence[FieldProblem]) -> str:
    """What is wrong with fields as one line."""
    return "; ".join(
        # a validator of ours, such as that of settings, may have said it all already
        item.allowed if ": got " in item.allowed else f"{item.field}: got {item.got}, allowed: {item.allowed}"
        for item in problems
    )


def _field_problem(error: Mapping[str, Any]) -> FieldProblem:
    location = [str(part) for part in error["loc"]]
    if location[:1] == ["body"]:
        location = location[1:]
    context = error.get("ctx", {})
    if error["type"] == "unknown_field":
        location.append(context["field"])
    got = "nothing" if error["type"] == "missing" else context.get("got", _shortened(error.get("input")))
    allowed = "a value, the field is required" if error["type"] == "missing" else error["msg"]
    if error["type"] == "json_invalid":
        location, got = ["body"], f"no JSON ({context.get('error', 'unreadable')})"
        allowed = "a JSON document"
    for prefix in ("Value error, ", "Input should be "):
        allowed = allowed.removeprefix(prefix)
    return FieldProblem(field=".".join(location) or "body", got=str(got), allowed=allowed)


def _shortened(value: object) -> str:
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= _LONGEST_GOT else text[: _LONGEST_GOT - 1] + "…"


def _on_isoflop_error(request: Request, error: Exception) -> JSONResponse:
    return response_for(cast(IsoflopError, error), instance=request.url.path)


def _on_validation_error(request: Request, error: Exception) -> JSONResponse:
    errors = field_problems(cast(RequestValidationError, error).errors())
    return problem(
        status=422,
        title="invalid input",
        detail=field_text(errors),
        instance=request.url.path,
        kind="invalid-input",
        errors=[item.model_dump() for item in errors],
    )


def _on_http_exception(request: Request, error: Exception) -> JSONResponse:
    refused = cast(HTTPException, error)
    response = problem(
        status=refused.status_code,
        title=str(refused.detail).lower(),
        detail=f"{request.method} {request.url.path}: {refused.detail}; GET /openapi.json lists what there is",
        instance=request.url.path,
        kind="not-found" if refused.status_code == 404 else "error",
    )
    response.headers.update(refused.headers or {})
    return response


def _on_bug(request: Request, _error: Exception) -> JSONResponse:
    # the traceback goes to the server's log (starlette raises it again); clients learn nothing of the inside
    return problem(
        status=500,
        title="internal error",
        detail="the service failed on this request; its log has the traceback",
        instance=request.url.path,
        kind="internal-error",
    )
