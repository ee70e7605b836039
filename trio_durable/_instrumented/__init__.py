"""The parts of a runtime that has instruments: the plain ones, and telling what they do.

Each overrides the steps of its plain class that begin and end something. The plain classes know
nothing of it. See `_parts` for who chooses, and `_telemetry` for what is told.
"""
