"""Processes that serve: put together from their parts, run, reloaded and taken down in order."""
