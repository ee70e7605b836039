"""Constants that the two processes of the demo share."""

AMOUNT = 5
"""The amount of a deposit."""
CALLS_PER_TASK = 8
"""The number of requests that each caller in the child carries out in turn."""
ALARM = 1 << 31
"""The bit that distinguishes a request for an alarm from one for a deposit."""
