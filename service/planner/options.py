"""Constants of the planner that a deployment or a test may set. It reads no setting besides."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Constants of the planner, each with its reason.

    Args:
        data_dir: where jobs write; part of every path in the plan.
        uniform_task_s: engine seconds of a task: long enough that a border costs nothing, short enough to lose little.
        adaptive_task_s: shorter, or feedback comes too late to shape what is drawn.
        first_task_samples: size of tasks while no rate is known.
        min_uniform_samples: smaller tasks would not fill an engine's batch.
        min_adaptive_samples: ... but adaptive ones wait for feedback anyway.
        adaptive_batch_share: of an engine's batch, that an adaptive task has at least while the budget is large: an
            engine of long samples finishes few in `adaptive_task_s`, and has to be full all the same.
        max_task_samples: bounds one task's memory on its host.
        tasks_per_engine: with samples that wait to enter it, so that an engine never idles at a task border.
        draining_per_engine: whose last samples are inside: as many tasks as begin while the longest completions run,
            each with a report and files of its own.
        scores_in_flight: score attempts a dispatcher holds at once.
        max_unscored_parts: generation waits when scoring is this far behind.
        flush_s: a part at least this often, once a job has run for ten times as long; a young job shows itself sooner.
        adaptive_flush_s: ... for adaptive jobs, whose feedback must be early; and for any job in its first seconds.
        retry_s: pause before a failed task runs again.
        wait_event_s: a task that waited this long for resources is named.
        places_per_node: most engine places of a node, >= 1; None for one a GPU, or one a core where there is none.
    """

    data_dir: str
    uniform_task_s: float = 15.0
    adaptive_task_s: float = 4.0
    first_task_samples: int = 512
    min_uniform_samples: int = 256
    min_adaptive_samples: int = 16
    adaptive_batch_share: float = 0.25
    max_task_samples: int = 50_000
    tasks_per_engine: int = 2
    draining_per_engine: int = 32
    scores_in_flight: int = 4
    max_unscored_parts: int = 64
    flush_s: float = 30.0
    adaptive_flush_s: float = 2.0
    retry_s: float = 2.0
    wait_event_s: float = 30.0
    places_per_node: int | None = None
