"""How fast trio_durable is, each figure beside the limit it is held against.

Run ``python -m benchmarks`` for everything or ``python -m benchmarks --short`` for the figures
that have a target. An absolute number says as much about the disk and the machine as about the
library, so nearly every scenario measures two things in one process, in turns: the library and
the bare thing that it can't be faster than (a trio memory channel, sqlite3 with nothing around
it). What counts is the median of the ratios of the rounds.

- `objects`: the durable classes that are called
- `workloads`: what can be measured, one class each; `limits` has the bare ones
- `scenarios`: which workload stands beside which, and what is to be reached
- `child`: one scenario, in a process of its own
- `measurements`: the records that come out; `report` and `chart` show them

`compare`, `load`, `anatomy`, `simulation` and `postgres_state` are programs of their own.
"""
