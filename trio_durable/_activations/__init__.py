"""Activations: live objects, their turns, and the path of a call to them."""
