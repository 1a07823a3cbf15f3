"""``python -m rtl.synthesis``."""

import os
import sys

from rtl.synthesis.command import main

if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
