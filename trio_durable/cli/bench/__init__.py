"""``trio-durable bench``: throughput and latency on this machine and disk, in about ten seconds.

Rates are compared with plain ``sqlite3``, measured in turns on the same disk. This is a first
estimate for new users; the complete benchmarks are in ``benchmarks/`` in the library's repository.
"""
