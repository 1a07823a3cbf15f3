"""``python -m hwsim``: the command ``hwsim``."""

import sys

from hwsim.cli import main

if __name__ == "__main__":
    sys.exit(main())
