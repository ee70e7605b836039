"""The plugin's fixture, also where the library isn't installed and so not found by pytest."""

from __future__ import annotations

from trio_durable.testing.plugin import durable_runtime

__all__ = ["durable_runtime"]
