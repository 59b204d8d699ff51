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
        tick_age_s: seconds since then; None before the first tick.
        num_ticks: ticks since the start.
        cpu_s: processor time that ticks have used [s].
        is_leader: whether this process is the one that acts.
        is_draining: whether it is about to stop and hands work back.
        cluster: the cluster in words, e.g. "embedded Ray, 1 node, 2 CPUs".
    """

    last_tick_at: datetime | None
    tick_age_s: float | None
    num_ticks: int
    cpu_s: float
    is_leader: bool
    is_draining: bool
    cluster: str
