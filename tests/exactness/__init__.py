"""Proof that state is exact or refused: drawn classes, brute force, rows of earlier releases."""
