"""Code generation for ``init`` and ``new``."""
