"""Programs that use trio_durable; see the README beside this file."""
