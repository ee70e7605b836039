"""Strict JSON parsing for commands, see `trio_durable._json.exact`."""

from __future__ import annotations

from ..._json.exact import parse as parse
