"""``trio-durable bench``: what to expect on this machine and this disk, in some ten seconds.

Every figure stands beside one of plain ``sqlite3`` that was measured in turns with it, on the same
disk. For all that can be known about the library's speed there is ``benchmarks/`` in its
repository; here is what somebody wants to know who thinks of using it.
"""
