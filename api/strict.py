"""What every /v1 request must be, whatever its route: no unknown query parameters, and JSON where there is a body.

A misspelt parameter would otherwise be passed over in silence and the answer be another one than was asked for. One
dependency on the routers of /v1, which reads the route it runs before.
"""

import difflib

from fastapi import Request
from fastapi.dependencies.utils import get_flat_dependant
from fastapi.routing import APIRoute

from service.errors import InvalidInput, IsoflopError


class UnsupportedMediaType(IsoflopError):
    """The body is of a kind that the service does not read."""

    status = 415
    title = "unsupported media type"


class PreconditionRequired(IsoflopError):
    """A change that must say which state it changes says none."""

    status = 428
    title = "precondition required"


def check_request(request: Request) -> None:
    """Refuses what no handler would read.

    Raises:
        InvalidInput: a query parameter that the route does not have.
        UnsupportedMediaType: a body that does not say it is JSON.
    """
    route = request.scope["route"]
    assert isinstance(route, APIRoute), "installed on routers of handlers"
    known = sorted(field.alias for field in get_flat_dependant(route.dependant).query_params)
    for name in request.query_params:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise InvalidInput(f"query: got {name[:100]!a}, allowed: {', '.join(known) or 'no parameter at all'}{hint}")
    given = request.headers.get("content-type", "")
    kind = given.partition(";")[0].strip().lower()
    if route.body_field is not None and kind != "application/json" and not kind.endswith("+json"):
        raise UnsupportedMediaType(
            f"Content-Type: got {ascii(given[:100]) if given else 'nothing'}, allowed: application/json"
        )
