"""The shard map and its coordinators."""
