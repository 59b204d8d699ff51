"""What every handler may use, made once in the composition root and handed to routes by FastAPI.

Handlers write rows and call `wake`; they never touch the cluster. Must not import workers: looking into a model's
directory is injected.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request

from service.config import Settings
from service.errors import InvalidInput
from service.experiments.report_source import Reports
from service.job_metrics import MetricsCache
from service.jobs import PromptSpec
from service.models import EndpointSource, EngineOptions, ModelSpec
from service.status import ControllerStatus
from service.store import Store

InspectModel = Callable[[str, Path, EngineOptions], ModelSpec]
"""Name, directory and engine options to a complete ModelSpec; raises InvalidInput."""
InspectAdapter = Callable[[str, Path, ModelSpec], ModelSpec]
"""Name, directory and base of an adapter to a complete ModelSpec; raises InvalidInput."""
InspectEndpoint = Callable[[EndpointSource], ModelSpec]
"""What is said of a model elsewhere to a complete ModelSpec; raises InvalidInput."""
RenderPrompt = Callable[[ModelSpec, PromptSpec, str, int], str]
"""Model, prompt, path of a problem set and seed to the first problem's prompt; raises InvalidInput."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppContext:
    """The parts of a running service that requests need.

    Args:
        wake: makes the control loop look at once.
        controller_status: the loop's latest word about itself.
        inspect_model: reads a model directory and traces its FLOP coefficients.
        inspect_adapter: merges an adapter into its base.
        inspect_endpoint: the same of what is known here of a model elsewhere.
        render_prompt: what the first problem's prompt looks like, through the model's own chat template if need be.
        started_at: when the application was made.
    """

    store: Store
    settings: Settings
    wake: Callable[[], None]
    controller_status: Callable[[], ControllerStatus]
    inspect_model: InspectModel
    inspect_adapter: InspectAdapter
    inspect_endpoint: InspectEndpoint
    render_prompt: RenderPrompt
    started_at: datetime
    metrics: MetricsCache = field(default_factory=MetricsCache)
    reports: Reports = field(default_factory=Reports)


def _context_of(request: Request) -> AppContext:
    return request.app.state.context


Context = Annotated[AppContext, Depends(_context_of)]
"""Parameter type of handlers that need the context."""


def path_under_roots(settings: Settings, text: str, *, field: str) -> Path:
    """`text` as a real path, symbolic links followed, that lies under one of the allowed directories.

    Raises:
        InvalidInput: it lies elsewhere; the message says where it may lie.
    """
    allowed = ", ".join(map(str, settings.roots))
    try:
        path = Path(text).expanduser().resolve()
    except (ValueError, OSError, RuntimeError) as error:
        raise InvalidInput(f"{field}: got {text[:200]!r}, which is no path ({error})") from error
    if not any(path.is_relative_to(root) for root in settings.roots):
        raise InvalidInput(f"{field}: got {str(path)!r}, allowed: a path under {allowed} (ISOFLOP_ROOTS)")
    return path


def servers_of(settings: Settings) -> dict[str, str | None]:
    """The servers that prompts may be sent to: variables of keys, by addresses without a slash at their ends."""
    return {url.rstrip("/"): variable for url, variable in settings.endpoints.items()}


def check_server(settings: Settings, field: str, base_url: str) -> None:
    """Refuses a server that the operator of this service has not named.

    Args:
        field: where it stands, and whose it is.

    Raises:
        InvalidInput: the message says which are.
    """
    known = servers_of(settings)
    if base_url not in known:
        allowed = ", ".join(known) or "none yet"
        raise InvalidInput(
            f"{field}: got {base_url!r}, allowed: {allowed}; servers are named in ISOFLOP_ENDPOINTS "
            'when the service starts, e.g. {"http://127.0.0.1:8000/v1": null}'
        )


def check_servers(settings: Settings, models: Iterable[ModelSpec]) -> None:
    """Refuses models of servers that were named when they were registered and are not any more.

    Raises:
        InvalidInput: naming model and server.
    """
    for model in models:
        if model.endpoint is not None:
            check_server(settings, f"models: server of {model.name}", model.endpoint.base_url)


def check_links(settings: Settings, directory: Path) -> None:
    """Sees that what is in a directory is where it seems to be: under the roots, also behind symbolic links.

    Raises:
        InvalidInput: a link that leads elsewhere, or nowhere.
    """
    for file in sorted(directory.iterdir()):
        if not file.is_symlink():
            continue
        target = path_under_roots(settings, str(file), field=f"path: {file.name} is a link")
        if not target.exists():
            raise InvalidInput(f"path: {file} is a link to {target}, where nothing is; allowed: files that exist")
