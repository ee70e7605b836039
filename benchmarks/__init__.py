"""Benchmarks of trio_durable, each figure beside the limit that it is compared with.

Run ``python -m benchmarks`` for everything or ``python -m benchmarks --short`` for the figures
that have a target. An absolute number depends as much on the disk and the machine as on the
library, so nearly every scenario measures two things in one process, in turns: the library and
its limit, without which it can't be (a trio memory channel, sqlite3 with nothing around it). The
result is the median of the ratios of the rounds.

- `objects`: the durable classes that are called
- `workloads`: measurable operations, one class each, as in `alarms`; `limits` has those without
  the library, `postgres` both on PostgreSQL
- `scenarios`: all workloads with their limits and targets
- `processes`: functions in fresh processes, one for each scenario
- `measurements`: the records that come out; `report` and `charts` show them

`pair`, `compare`, `load`, `anatomy`, `simulation` and `postgres.state` are programs of their own.
"""
