"""Where things are among the pages."""

from api.dashboard import pages

_PATHS = {"select": "/training/selections/", "finetune": "/training/finetunes/", "compare": "/comparisons/"}


def path_of(any_id: str) -> str:
    """The page of a job, selection, finetune or comparison."""
    return _PATHS.get(any_id.partition("-")[0], "/jobs/") + any_id


def link_to(any_id: str, name: str | None = None, *, note: str = "") -> pages.Link:
    """A link to that page, by a name for people where there is one."""
    return pages.Link(name=name or any_id, path=path_of(any_id), note=note)
