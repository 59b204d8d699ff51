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
