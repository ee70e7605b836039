"""The runtime holds: whatever users' code and event loops do, an error is that of one request.

    test_raised        exceptions that handlers raise, of every kind
    test_workers       scopes and cancellations that a handler leaves in its task
    test_hosts         entering, leaving, forking; runtimes that are never left, or fail
    test_gate          what a turn hands on waits for the commits it depends on
    test_one_turn      no turn within a turn, however the event loop is run inside of one
    test_slices        mailboxes share the event loop
    test_garbage       failed calls leave nothing to the garbage collector
    test_checkpoints   each public coroutine can be cancelled, and lets others run
    test_storms        signals whose handlers exit or raise, at random moments
    mutants            the library with one of these guarantees broken

Faults on each line of the library are in `tests/injection/`.
"""
