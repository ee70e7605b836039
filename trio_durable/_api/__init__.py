"""The public classes, which name each other because users reach each from the others."""
