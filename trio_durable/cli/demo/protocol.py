"""Constants and rules that the two processes of the demo share."""

OPENING = 1_000
"""The balance of an account before its first transfer."""
AMOUNT = 5
"""The amount of a transfer."""
BLOCKED_EVERY = 500
"""Of so many accounts one is blocked, so that transfers to it become dead letters."""
CALLS_PER_TASK = 8
"""The number of requests that each caller in the child carries out in turn."""
ALARM = 1 << 31
"""The bit that distinguishes a request for an alarm from one for a transfer."""


def account_id(number: int) -> str:
    """The object id of an account."""
    return f"account-{number}"


def account_number(object_id: str) -> int:
    """The number of an account, from its object id."""
    return int(object_id.removeprefix("account-"))


def payee(payer: int, transfer: int, accounts: int) -> int:
    """The account that gets a transfer.

    It follows from the payer's number and from the number of the transfer, counted from 1 for each
    payer. So the parent knows what each account must get without a record of each transfer.
    """
    return (payer + 7919 * transfer) % accounts
