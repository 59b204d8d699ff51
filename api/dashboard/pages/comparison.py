"""The comparison of jobs as a page."""

from dataclasses import dataclass

from api.dashboard.pages.frame import Shell
from service.figures import Figure
from service.report import Comparison


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonPage:
    """Was the compute well spent? The body is the offline report's.

    Args:
        downloads: format and address of the same comparison as a file.
    """

    shell: Shell
    comparison: Comparison
    figures: tuple[Figure, ...]
    downloads: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoosePage:
    """Which jobs to compare? Stands where a comparison would while none was asked for, or none that can be made.

    Args:
        notice: why what was asked for cannot be shown; "" when nothing was asked for.
        jobs: id and label of the latest jobs, newest first.
    """

    shell: Shell
    notice: str
    jobs: tuple[tuple[str, str], ...]
