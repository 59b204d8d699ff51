"""What surrounds every page, links between pages, and the page of an error."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Shell:
    """What surrounds every page.

    Args:
        active: key of the current entry in the navigation; "" for none.
        now: the moment the page was made (UTC).
        tick_age_s: seconds since the controller last looked; None while it has not started.
        identity: who is signed in, e.g. "local operator".
        can_operate: whether scale and cancel controls are shown.
    """

    active: str
    now: datetime
    version: str
    tick_age_s: float | None
    identity: str
    can_operate: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A name and the page it leads to; `note` is what stands beside it."""

    name: str
    path: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorPage:
    """What happened, and what to do next."""

    shell: Shell
    status: int
    title: str
    detail: str
    next_step: str
