"""Put on the path of servers that many tests share: their lines count for the coverage that `make test` prints."""

from __future__ import annotations

import coverage

coverage.process_startup()  # does nothing unless COVERAGE_PROCESS_START names the settings
