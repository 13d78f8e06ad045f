"""Which workers of a cluster take part in a pass."""

from __future__ import annotations

from zoo.caft.part_worker import describe_worker
from zoo.caft.roster import Roster


def test_a_worker_left_out_of_a_pass_is_asked_again_for_the_next() -> None:
    said: list[str] = []
    roster = Roster(said.append)
    for name in ("a", "b", "old"):
        text = describe_worker() if name != "old" else "{}"
        roster.add(f"tls://{name}", {"name": name, "resources": {}}, text)
    roster.leave_out_of_this_pass("tls://a", "a", "it has no GPU")
    assert (list(roster.usable()), roster.has_left_out) == (["tls://b"], True)
    assert "tls://a" in roster

    roster.begin_pass()
    assert "tls://a" not in roster  # so that it is asked what it is
    assert "tls://old" in roster  # its version stays wrong, and is not told again
    roster.add("tls://a", {"name": "a", "resources": {}}, describe_worker())
    assert sorted(roster.usable()) == ["tls://a", "tls://b"]
    assert [text.split(":")[0] for text in said] == ["left out old", "left out a"]
