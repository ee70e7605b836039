"""Delivery of alarms that are claimed: what all schedulers do with one, until its outcome."""
