"""``python -m benchmarks.load``."""

import sys

from .command import main

if __name__ == "__main__":  # not in the processes of the parts
    sys.exit(main())
