"""What the two processes of the demo have agreed on."""

AMOUNT = 5
"""What one deposit adds to a balance."""
CALLS_PER_TASK = 8
"""How many requests each caller in the child works off one after the other."""
ALARM = 1 << 31
"""What tells the request of an alarm from that of a deposit."""
