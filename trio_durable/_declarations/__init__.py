"""Declarations of a class: its decorators, the checks of its body, and their records."""
