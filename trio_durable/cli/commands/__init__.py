"""The commands, one module each.

Those that look into a storage, and change data in it, use the contract of storages alone, so they
work on all of them (but for `migrate --down`, which only PostgreSQL has). Read-only commands work
beside a running runtime. A command that writes takes the writing side, so that it and a runtime
exclude each other; before that, it checks that there is anything to do, since taking the writing
side creates a missing file.
"""
