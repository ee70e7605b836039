"""Alarms as values: the record, its validation, its delivery, and the retry policy."""
