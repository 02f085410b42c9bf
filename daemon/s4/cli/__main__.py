"""`python -m s4.cli` is `s4`."""

from __future__ import annotations

import sys

from s4.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
