"""The store: one data directory on one disk. Volumes of shard records, their index, and LevelDB."""
