"""Static files of the pages, from three places: the dashboard's own, the report's shared ones, and plotly's script.

Serves only the files named here. Plotly's script comes from the installed Python package, so that nothing
of it is kept in this repository and pages work without a network.
"""

from importlib.util import find_spec
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse
from starlette.routing import BaseRoute, Route

from service.report_html import ASSETS_DIR

STATIC_DIR = Path(__file__).parent / "static"
OWN_STATIC = ("dashboard.css", "dashboard.js", "icon.svg")
SHARED_STATIC = ("base.css", "report.css", "theme.js", "figures.js")


def plotly_js_path() -> Path:
    """plotly.min.js of the installed plotly package; found without importing it.

    Raises:
        FileNotFoundError: when plotly is not installed.
    """
    spec = find_spec("plotly")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("plotly.min.js: the Python package plotly is not installed")
    return Path(spec.origin).parent / "package_data" / "plotly.min.js"


def static_routes() -> list[BaseRoute]:
    """One route for each file below /static: including a router in another keeps routes and loses mounts."""
    own = [_file_route(name, STATIC_DIR / name, max_age_s=0) for name in OWN_STATIC]
    shared = [_file_route(f"shared/{name}", ASSETS_DIR / name, max_age_s=0) for name in SHARED_STATIC]
    # large and tied to the installed version: browsers may keep it for a day
    plotly = _file_route("plotly.min.js", plotly_js_path(), max_age_s=86_400)
    return [*own, *shared, plotly]


def _file_route(name: str, path: Path, *, max_age_s: int) -> Route:
    async def send(_request: Request) -> FileResponse:
        return FileResponse(path, headers={"Cache-Control": f"private, max-age={max_age_s}"})

    return Route(f"/static/{name}", send)
