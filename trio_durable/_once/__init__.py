"""Calls and messages that happen once: their once-keys, from the caller to the record."""
