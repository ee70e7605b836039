"""The library with one defence of its socket, or of queries, removed, to see that the tests notice.

    PYTHONPATH=tests python -m control.mutants           all mutants
    PYTHONPATH=tests python -m control.mutants NAME …    some of them

See `exactness.mutants`, which makes them and runs the tests.
"""

from __future__ import annotations

import sys

from exactness.mutants import BOUNDED_TESTS, Mutant, main

_ATTACKS = (*BOUNDED_TESTS, "control/test_attacks.py", "-k")
CHECKS: dict[str, tuple[str, ...]] = {
    "modes": (*BOUNDED_TESTS, "control/test_control.py", "-k", "trio and owner_of_the_file"),
    "users": (*BOUNDED_TESTS, "control/test_users.py", "-k", "trio and may_connect"),
    "queries": (*BOUNDED_TESTS, "cli/test_query.py", "-k", "nothing_else_is and not postgresql"),
    "proofs": (*_ATTACKS, "trio and secret_is_proved"),
    "silence": (*_ATTACKS, "trio and say_nothing"),
    "commands": (*_ATTACKS, "trio and commands_that_stay"),
    "types": (*_ATTACKS, "trio and other_types"),
}

MUTANTS = [
    Mutant(
        "socket_0666",
        "all users may connect to the socket",
        "modes",
        "_cluster/address.py",
        "os.chmod(address.path, 0o600)",
        "os.chmod(address.path, 0o666)",
    ),
    Mutant(
        "note_0666",
        "all users may read the secret",
        "modes",
        "_cluster/node_note.py",
        "os.O_EXCL, 0o600)",
        "os.O_EXCL, 0o666)",
    ),
    Mutant(
        "uid_unchecked",
        "the user of the other side isn't checked",
        "users",
        "_cluster/address.py",
        "if user not in (0, me) and not (has_dialled and me == 0):",
        "if False:",
    ),
    Mutant(
        "authorizer_off",
        "a query may do what SQLite can",
        "queries",
        "storage/sqlite/_query.py",
        "            connection.set_authorizer(authorize)\n",
        "",
    ),
    Mutant(
        "any_secret",
        "a wrong proof is accepted",
        "proofs",
        "_cluster/handshake.py",
        "if not hmac.compare_digest(proof.encode(), expected.encode()):",
        "if False:",
    ),
    Mutant(
        "unbounded_silence",
        "connections that say nothing are kept",
        "silence",
        "_cluster/listener.py",
        "if len(self._unproved) > MAX_UNPROVED:",
        "if False:",
    ),
    Mutant(
        "unbounded_commands",
        "any number of commands may stay",
        "commands",
        "_runtime/control.py",
        "if len(self._peers) >= MAX_COMMANDS:",
        "if False:",
    ),
    Mutant(
        "types_unchecked",
        "arguments of any type are stored",
        "types",
        "_runtime/routed_administration.py",
        "        check_arguments(name, arguments)\n",
        "",
    ),
]


if __name__ == "__main__":
    sys.exit(main("python -m control.mutants", MUTANTS, CHECKS))
