"""Serves the example pages on this machine: `python -m tests.browser.preview [port]`.

For working on templates and for the browser tests, with the headers the real service sends. Listens on 127.0.0.1 only.
"""

import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route

from api.dashboard.assets import static_routes
from api.dashboard.render import CONTENT_SECURITY_POLICY, make_dashboard_environment, render
from tests.api.dashboard.example_jobs import JOB_ID, samples_page
from tests.api.dashboard.example_training import SELECTION_ID, selection_page
from tests.api.dashboard.examples import example_pages

DEFAULT_PORT = 8266


def preview_app() -> Starlette:
    """An app that answers every path of `tests.api.dashboard.examples`."""
    environment = make_dashboard_environment()
    page_by_path = example_pages()
    samples_path = f"/jobs/{JOB_ID}/samples"
    selection_path = f"/training/selections/{SELECTION_ID}"

    async def show(request: Request) -> HTMLResponse:
        page = page_by_path[request.url.path]
        if request.url.path == samples_path:
            page = samples_page(request.query_params.get("sample", "s02"))
        if request.url.path == selection_path:
            page = selection_page(int(request.query_params.get("row", "0")))
        html = render(page, is_fragment="fragment" in request.query_params, environment=environment)
        return HTMLResponse(html, headers={"Content-Security-Policy": CONTENT_SECURITY_POLICY})

    return Starlette(routes=[*static_routes(), *(Route(path, show) for path in page_by_path)])


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_PORT
    uvicorn.run(preview_app(), host="127.0.0.1", port=port, log_level="warning")
