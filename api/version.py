"""The version of the installed project, and of a checkout its commit."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

try:
    VERSION = version("isoflop")
except PackageNotFoundError:  # a checkout that was never installed
    VERSION = "0+unknown"


def commit(root: Path = Path(__file__).parent.parent) -> str | None:
    """The commit that is checked out, without asking whether files differ from it; None outside a checkout."""
    git = root / ".git"
    try:
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head[:12]
        name = head.removeprefix("ref: ")
        if (git / name).is_file():
            return (git / name).read_text().strip()[:12]
        packed = (git / "packed-refs").read_text().splitlines()
    except OSError:
        return None
    return next((line.split()[0][:12] for line in packed if line.endswith(f" {name}")), None)
