"""A prompt that kills the engine, with real hosts and files; the engine is simulated."""

import json

import pytest

from service.jobs import Phase
from service.verify import verify_directory
from tests.e2e import builders
from tests.e2e.builders import World
from workers.local_cluster import LocalCluster


# an engine thread ends with the error that killed its engine, for the host's log; in one process pytest sees it
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_poison_prompt_becomes_error_rows_and_everything_else_is_drawn(tmp_path, monkeypatch):
    make_problems = builders.make_problems

    def with_poison(directory, num_problems):
        path = make_problems(directory, num_problems)
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        rows[5]["question"] += " [poison]"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    monkeypatch.setattr(builders, "make_problems", with_poison)
    world = World(tmp_path, num_problems=12)
    cluster = LocalCluster()
    try:
        job = world.run(world.controller(cluster), world.submit())
        assert job.phase is Phase.finished_with_errors, job.error
        report = verify_directory(world.job_dir(job))
        assert report.faults == ()
        assert (report.rows, report.error_rows) == (48, 4)
        assert (report.planned, report.withdrawn) == (48, 0), "tasks taken apart and their halves plan the same samples"
    finally:
        cluster.close()
        world.store.close()
