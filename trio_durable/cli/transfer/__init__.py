"""Export files: their format, writing them, and reading them back."""
