"""The version of the installed project."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("isoflop")
except PackageNotFoundError:  # a checkout that was never installed
    VERSION = "0+unknown"
