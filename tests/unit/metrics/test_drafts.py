"""What becomes of proposed tokens is counted by outcome."""

from serving.metrics import DraftMetrics
from serving.seams import DraftCounts
from tests.unit.metrics.pages import GENERATION, generator, value


def test_proposed_tokens_are_counted_by_their_outcome() -> None:
    replica, _ = generator()
    drafts = DraftMetrics(replica)
    drafts.observe(DraftCounts(accepted=3, rejected=1, unread=2))
    drafts.observe(DraftCounts(accepted=1, rejected=0, unread=0))
    found = {
        outcome: value(replica.registry, "drafted_tokens_total", GENERATION, outcome=outcome)
        for outcome in ("accepted", "rejected", "unread")
    }
    assert found == {"accepted": 4, "rejected": 1, "unread": 2}


def test_a_replica_without_a_draft_has_no_such_series() -> None:
    replica, _ = generator()
    assert value(replica.registry, "drafted_tokens_total", GENERATION, outcome="accepted") is None
