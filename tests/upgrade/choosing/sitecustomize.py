"""Put on the path of a cluster's processes: the nodes that the file S4_OLD_NODES names run the program of
S4_OLD_PROGRAM."""

from __future__ import annotations

import os
import sys
from pathlib import Path

words = sys.orig_argv
name = words[words.index("--name") + 1] if "--name" in words else "dev"
if name in Path(os.environ["S4_OLD_NODES"]).read_text().split():
    sys.path.insert(0, os.environ["S4_OLD_PROGRAM"])
