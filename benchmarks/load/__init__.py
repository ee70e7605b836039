"""Behaviour under load: ``python -m benchmarks.load``, or parts of it by name.

`python -m benchmarks` compares the speed of moments with limits. This shows a million objects, ten
minutes of calls, a slow disk, and more calls than can be done.

- `million`: a million objects in one file, a hundred thousand in memory, a million alarms
- `steady`: ten minutes of everything at once, with flat memory
- `slow_disk`: rates and latencies if every transaction takes longer
- `overload`: two to ten times the calls that can be done, from callers that wait for no one

Each has its figures, the bounds that they must keep, and its plots, and runs in processes of its
own; `parts` has the rest that they share.
"""
