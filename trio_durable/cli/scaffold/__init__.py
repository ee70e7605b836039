"""Code generation for ``init`` and ``new``, from the templates in ``templates/``."""
