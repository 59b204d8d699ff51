"""Ids to be ignored are kept for a while, not for ever."""

from workers.recent_ids import RecentIds


def test_recent_ids_keep_the_newest_and_never_more_than_the_limit() -> None:
    recent = RecentIds(limit=3)

    for name in ("a", "b", "a", "c", "d"):
        recent.add(name)

    assert [name in recent for name in "abcd"] == [False, True, True, True]
    assert len(recent) == 3
