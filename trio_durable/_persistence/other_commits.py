"""Other commits: those of calls, beside which deliveries in the background give way."""

from __future__ import annotations

from .group_commit import GroupCommit

EXPECTED_SECONDS = 0.1
"""How long after a change by a call more calls are expected."""


class OtherCommits:
    """Tells a deliverer whether calls commit changes.

    Args:
        group_commit: Counts all commits.
    """

    def __init__(self, group_commit: GroupCommit) -> None:
        self._group_commit = group_commit
        self._seen = 0
        self._expected_until = 0.0

    def are_expected(self, own: int, now: float) -> bool:
        """True if a call has committed a change recently.

        Args:
            own: The commits so far that the deliverer has caused itself.
            now: The loop's time, in seconds.
        """
        others = self._group_commit.rows - own
        if others > self._seen:
            self._expected_until = now + EXPECTED_SECONDS
        self._seen = others
        return now < self._expected_until
