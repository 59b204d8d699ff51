"""The NVIDIA GPU of a measurement: what it is called, what its maker says it can do, and what it does.

Peaks are rates of dense bfloat16 matrix products with float32 sums, from the makers' data sheets: without sparsity,
which doubles the printed number, and at boost clocks that no card holds under load. So a share of the peak is below one
even for a single large product; `matmul_flops_per_second` says what this card reaches.
"""

import subprocess
import time
from dataclasses import dataclass
from statistics import median

from service.errors import InvalidInput

# The first name that is part of the card's own counts. Source: NVIDIA's data sheets, bfloat16 without sparsity.
_PEAKS = (
    ("B200", 2250e12),
    ("H200", 989e12),
    ("H100 NVL", 835e12),
    ("H100 PCIe", 756e12),
    ("H100", 989e12),
    ("A100", 312e12),
    ("L40S", 362e12),
    ("L4", 121e12),
)
_FIELDS = ("name", "memory.total", "driver_version", "compute_cap")
_QUERY_S = 30.0


class NoGpu(InvalidInput):
    """There is no NVIDIA GPU here; the message says what was found and what is needed."""

    title = "no GPU"


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One GPU.

    Args:
        name: as the driver says it.
        compute_capability: "9.0" for Hopper.
        peak_flops_per_second: of dense bfloat16 products by the data sheet [FLOP/s]; None for a card not listed here.
    """

    name: str
    memory_gib: float
    driver: str
    compute_capability: str
    peak_flops_per_second: float | None


def find_card() -> Card:
    """The first NVIDIA GPU of this machine.

    Raises:
        NoGpu: there is none.
    """
    command = ["nvidia-smi", f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_QUERY_S, check=False)
    except FileNotFoundError as error:
        raise _no_gpu("no nvidia-smi on PATH") from error
    except subprocess.TimeoutExpired as error:
        raise _no_gpu(f"an nvidia-smi that does not answer within {_QUERY_S:.0f} s") from error
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        raise _no_gpu(f"an nvidia-smi that says: {(done.stdout + done.stderr).strip()[:200] or 'nothing'}")
    return parse_card(lines[0])


def parse_card(line: str) -> Card:
    """The card of one line of nvidia-smi's CSV.

    Raises:
        NoGpu: the line says something else.
    """
    values = [value.strip() for value in line.split(",")]
    if len(values) != len(_FIELDS) or not values[1].replace(".", "", 1).isdigit():
        raise _no_gpu(f"an nvidia-smi that says: {line[:200]}")
    name, memory_mib, driver, capability = values
    peak = next((peak for part, peak in _PEAKS if part in name), None)
    return Card(
        name=name,
        memory_gib=float(memory_mib) / 1024,
        driver=driver,
        compute_capability=capability,
        peak_flops_per_second=peak,
    )


def matmul_flops_per_second(size: int = 8192, repeats: int = 20, device: str = "cuda") -> float:
    """What one square bfloat16 product of random numbers reaches [FLOP/s], the median of `repeats`."""
    import torch

    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds: list[float] = []
    for _ in range(repeats + 3):
        _wait(device)
        started = time.perf_counter()
        torch.matmul(left, right)
        _wait(device)
        seconds.append(time.perf_counter() - started)
    return 2.0 * size**3 / median(seconds[3:])


def _wait(device: str) -> None:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def _no_gpu(found: str) -> NoGpu:
    return NoGpu(
        f"the GPU benchmark needs an NVIDIA GPU, got {found}; allowed: a machine where `nvidia-smi -L` lists one"
    )


if __name__ == "__main__":
    import json

    print(json.dumps({"matmul_flops_per_second": matmul_flops_per_second()}))
