"""What each page shows: one frozen dataclass per page, exactly the values its template uses.

Invariant: a template reads nothing but its page, so a page can be built by hand, tested and looked at without a
store. Amounts are numbers in natural units; templates write them with `service.wording`. Knows no store and no HTTP.
"""

from api.dashboard.pages.comparison import ChoosePage, ComparisonPage
from api.dashboard.pages.frame import ErrorPage, Shell
from api.dashboard.pages.job import EventLine, JobPage, MetricView, TaskLine, WasteLine, job_headline
from api.dashboard.pages.lists import (
    HostLine,
    ModelLine,
    ModelsPage,
    PoolLine,
    ProblemSetLine,
    ProblemsPage,
    UsageLine,
    UsagePage,
    WorkersPage,
)
from api.dashboard.pages.overview import BudgetView, JobLine, OverviewPage, UseLine, overview_headline
from api.dashboard.pages.samples import SampleDetail, SampleFilter, SampleLine, SamplesPage, Verdict

Page = (
    OverviewPage
    | JobPage
    | SamplesPage
    | WorkersPage
    | ModelsPage
    | ProblemsPage
    | UsagePage
    | ComparisonPage
    | ChoosePage
    | ErrorPage
)

__all__ = [
    "BudgetView",
    "ChoosePage",
    "ComparisonPage",
    "ErrorPage",
    "EventLine",
    "HostLine",
    "JobLine",
    "JobPage",
    "MetricView",
    "ModelLine",
    "ModelsPage",
    "OverviewPage",
    "Page",
    "PoolLine",
    "ProblemSetLine",
    "ProblemsPage",
    "SampleDetail",
    "SampleFilter",
    "SampleLine",
    "SamplesPage",
    "Shell",
    "TaskLine",
    "UsageLine",
    "UsagePage",
    "UseLine",
    "Verdict",
    "WasteLine",
    "WorkersPage",
    "job_headline",
    "overview_headline",
]
