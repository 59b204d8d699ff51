"""What each page shows: one frozen dataclass per page, exactly the values its template uses.

Invariant: a template reads nothing but its page, so a page can be built by hand, tested and looked at without a
store. Amounts are numbers in the units people state; templates use `service.wording`. Knows no store, no HTTP.
"""

from api.dashboard.pages.comparison import ChoosePage, ComparisonPage
from api.dashboard.pages.experiment import (
    ExperimentLine,
    ExperimentPage,
    ExperimentsPage,
    NodeLine,
    StageLine,
    experiments_headline,
)
from api.dashboard.pages.frame import ErrorPage, Link, Shell
from api.dashboard.pages.job import ArmLine, EventLine, JobPage, MetricView, TaskLine, WasteLine, job_headline
from api.dashboard.pages.lists import (
    HostLine,
    ModelLine,
    ModelsPage,
    PoolLine,
    ProblemSetLine,
    ProblemsPage,
    StudentLine,
    UsageLine,
    UsagePage,
    WorkersPage,
)
from api.dashboard.pages.overview import BudgetView, HeldLine, JobLine, OverviewPage, UseLine, overview_headline
from api.dashboard.pages.samples import SampleDetail, SampleFilter, SampleLine, SamplesPage, Verdict
from api.dashboard.pages.training import (
    CheckpointLine,
    FilterLine,
    FinetuneLine,
    FinetunePage,
    MadeSet,
    OriginLine,
    RowDetail,
    RowLine,
    SelectionLine,
    SelectionPage,
    TrainingPage,
    finetune_headline,
    selection_headline,
    training_headline,
)

Page = (
    OverviewPage
    | JobPage
    | SamplesPage
    | WorkersPage
    | ModelsPage
    | ProblemsPage
    | UsagePage
    | TrainingPage
    | SelectionPage
    | FinetunePage
    | ExperimentsPage
    | ExperimentPage
    | ComparisonPage
    | ChoosePage
    | ErrorPage
)

__all__ = [
    "ArmLine",
    "BudgetView",
    "CheckpointLine",
    "ChoosePage",
    "ComparisonPage",
    "ErrorPage",
    "EventLine",
    "ExperimentLine",
    "ExperimentPage",
    "ExperimentsPage",
    "FilterLine",
    "FinetuneLine",
    "FinetunePage",
    "HeldLine",
    "HostLine",
    "JobLine",
    "JobPage",
    "Link",
    "MadeSet",
    "MetricView",
    "ModelLine",
    "ModelsPage",
    "NodeLine",
    "OriginLine",
    "OverviewPage",
    "Page",
    "PoolLine",
    "ProblemSetLine",
    "ProblemsPage",
    "RowDetail",
    "RowLine",
    "SampleDetail",
    "SampleFilter",
    "SampleLine",
    "SamplesPage",
    "SelectionLine",
    "SelectionPage",
    "Shell",
    "StageLine",
    "StudentLine",
    "TaskLine",
    "TrainingPage",
    "UsageLine",
    "UsagePage",
    "UseLine",
    "Verdict",
    "WasteLine",
    "WorkersPage",
    "experiments_headline",
    "finetune_headline",
    "job_headline",
    "overview_headline",
    "selection_headline",
    "training_headline",
]
