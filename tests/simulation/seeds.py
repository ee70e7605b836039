"""The seeds that the tests run, for the library as it is and for what is broken of it."""

SEEDS = range(30)
SQLITE_SEEDS = range(6)
"""Those that run on SQLite as well, which takes longer."""
ASYNCIO_SEEDS = range(18)
"""Those that run on asyncio as well."""
MORE_SEEDS = range(30, 70)
"""Those that run, too, for what shows seldom."""
