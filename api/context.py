"""What every handler may use, made once in the composition root and handed to routes by FastAPI.

Handlers write rows and call `wake`; they never touch the cluster. Must not import workers: looking into a model's
directory is injected.
"""

from collections.abc import Callable
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
        inspect_endpoint: the same of what is known here of a model elsewhere.
        render_prompt: what the first problem's prompt looks like, through the model's own chat template if need be.
        started_at: when the application was made.
    """

    store: Store
    settings: Settings
    wake: Callable[[], None]
    controller_status: Callable[[], ControllerStatus]
    inspect_model: InspectModel
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
