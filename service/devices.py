"""What a host holds while it lives: GPUs, or cores where there are none; and time on them.

Device time is seconds times devices held: two seconds of an engine on four GPUs are eight GPU-seconds. GPU time and
core time are never added to each other.
"""

from dataclasses import dataclass

SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceTime:
    """Time on devices [GPU-seconds, core-seconds]. Sums add with `+`."""

    gpu_s: float = 0.0
    cpu_s: float = 0.0

    def __add__(self, other: "DeviceTime") -> "DeviceTime":
        return DeviceTime(gpu_s=self.gpu_s + other.gpu_s, cpu_s=self.cpu_s + other.cpu_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Devices:
    """GPUs and cores that are held by one host, and by nobody else; of the two one is 0.

    The core that drives a GPU is not counted: it is there for the GPU.
    """

    gpus: int = 0
    cores: int = 0

    @property
    def count(self) -> int:
        """How many."""
        return self.gpus + self.cores

    def over(self, seconds: float) -> DeviceTime:
        """Time on all of them for so long."""
        return DeviceTime(gpu_s=self.gpus * seconds, cpu_s=self.cores * seconds)


ONE_CORE = Devices(cores=1)
NO_DEVICES = Devices()
