"""The same workloads on what else one might pick, beside trio_durable.

Run ``make compare``, or ``python -m benchmarks.compare`` where the contenders are installed;
what isn't there is left out and named. One driver calls all of them.

- `contender`: what the driver asks of one: `Counters` to change and read, `Alarms` to set
- `catalogue`: all of them, with their settings, their durability, and what each can't do
- `driver`: the workloads, and how a contender is put through them
- `child`: one contender in a process of its own, for a round or to have its syncs counted
- `syncs`: how often the disk was told to sync meanwhile, by strace
- `results`: the records that come out; `tables` and `bars` show them
- one module for each contender: `ours`, `over_http`, `plain`, `dbos_workflows`,
  `procrastinate_jobs`, `apscheduler_jobs`, `pykka_actors`
"""
