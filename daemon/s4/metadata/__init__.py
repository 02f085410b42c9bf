"""Metadata as values: row keys and formats, and the decisions that turn commands into rows. No I/O."""
