"""What the control loop says of itself, as one frozen value that the API may read at any moment.

The loop replaces the value after every tick; nobody else writes it. Imports nothing of the project.
"""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerStatus:
    """The loop as of now.

    Args:
        last_tick_at: end of the last tick, or None before the first.
        tick_age_s: seconds since then, or since the start before the first tick.
        num_ticks: ticks since the start.
        num_errors: ticks that failed since the start.
        cpu_s: processor time that ticks have used [s].
        is_draining: whether it is about to stop and hands work back.
        cluster: the cluster in words, e.g. "3 hosts on 1 node".
    """

    last_tick_at: datetime | None
    tick_age_s: float
    num_ticks: int
    num_errors: int
    cpu_s: float
    is_draining: bool
    cluster: str
