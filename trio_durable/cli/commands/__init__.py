"""The commands, one module each.

Commands that read or change a storage use only the contract of storages, so they work on all of
them; the exception is ``migrate --down``, which only PostgreSQL supports. Read-only commands work
while a runtime is open. A command that writes opens the writer of the storage, so a runtime and the
command exclude each other; or, while runtimes are open that commands can reach, has these make the
changes, see `cli.storage.owner`. Before that it checks with a reader that there is something to do,
because opening the writer would create a missing file.
"""
