"""Partitions' primaries and the one writer loop of a store."""
