"""Telemetry inside the runtime: the records, and the notifier that hands them to instruments."""
