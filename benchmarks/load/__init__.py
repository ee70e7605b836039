"""What holds under load: ``python -m benchmarks.load``, or parts of it by name.

`python -m benchmarks` says how fast it is beside its limits, in moments. This says what becomes of
it with a million objects, for ten minutes, on a slow disk, and with more calls than it can do.

- `million`: a million objects in one file, a hundred thousand in memory, a million alarms
- `steady`: ten minutes of everything at once, and whether memory stays what it is
- `slow_disk`: what callers get where every transaction takes longer
- `overload`: offered two to ten times what can be done, by arrivals that wait for nobody

Each has its figures, the bounds that they must keep, and its plots; `command` runs them, each in a
process of its own, and writes one JSON file and one SVG file for each.
"""
