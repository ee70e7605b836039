"""The same workloads on trio_durable and on alternatives to it.

Run ``make compare``, or ``python -m benchmarks.compare`` where the contenders are installed; the
others are left out and named. One driver calls all of them.

- `contender`: the interface of a contender: `Counters` to change and read, `Alarms` to set
- `catalogue`: all of them, with their settings, their durability, and the workloads that they lack
- `driver`: the workloads, each contender in a process of its own
- `syncs`: the number of syncs meanwhile, by strace
- `results`: the records that come out, and their table
- `in_process`, `libraries`, `over_http`: the contenders; `served` is ours behind a server
"""
