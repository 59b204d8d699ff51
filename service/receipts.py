"""What an attempt says it made: durable files, what they used, and what strategies need to know of them."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from service.devices import Devices
from service.work import Indices


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a part or an attempt used. Sums add with `+`. What cannot be told is NaN, and so is every sum with it.

    Args:
        flops: exact accounting [FLOPs].
        flops_paper: 2 * P * completion tokens [FLOPs].
        truncated_flops: the share of `flops` spent on samples cut at max_tokens.
        busy_s: seconds of engine, trainer or scorer time; of an engine that several attempts share, this one's share.
        gpu_s: the same times the GPUs that were held [GPU-seconds].
        cpu_s: the same times the cores that were held where no GPU was [core-seconds].
        nano_usd: price of the tokens, each sample's rounded up [nano-USD].
    """

    # what pydantic writes NaN as where it stores this
    __pydantic_config__ = {"ser_json_inf_nan": "strings"}  # noqa: RUF012

    samples: int = 0
    errors: int = 0
    truncated: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    flops: float = 0.0
    flops_paper: float = 0.0
    truncated_flops: float = 0.0
    truncated_flops_paper: float = 0.0
    truncated_tokens: int = 0
    busy_s: float = 0.0
    gpu_s: float = 0.0
    cpu_s: float = 0.0
    nano_usd: float = 0.0
    truncated_nano_usd: float = 0.0

    @classmethod
    def of_time(cls, busy_s: float, devices: Devices) -> "Usage":
        """Nothing but time."""
        time = devices.over(busy_s)
        return cls(busy_s=busy_s, gpu_s=time.gpu_s, cpu_s=time.cpu_s)

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(**{name: getattr(self, name) + getattr(other, name) for name in Usage.__slots__})


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreDelta:
    """What a scored shard tells strategies, one entry a sample; arrays of equal length.

    Args:
        problem: int32 problem index.
        sample_index: int32.
        is_correct: bool, the answer scorer's verdict.
        steps: int8, 1 valid, 0 invalid, -1 unknown.
        solution: uint64 exact key of the completion.
    """

    problem: npt.NDArray[np.int32]
    sample_index: npt.NDArray[np.int32]
    is_correct: npt.NDArray[np.bool_]
    steps: npt.NDArray[np.int8]
    solution: npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """One durable file of an attempt: written, fsynced, named once. Parts count from 0 without gaps."""

    part: int
    path: str
    sha256: str
    rows: int
    usage: Usage
    indices: Indices | None = None
    delta: ScoreDelta | None = None
    facts: dict[str, float] = field(default_factory=dict[str, float])
    """Prepare: what `workers.prepare.prepare` lists. Select: rows after each filter. Finetune: `step`, `loss`."""
