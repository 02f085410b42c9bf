"""Hosts of rows, each with one writer loop: for one process (host.py), or for replicas (replicated.py over
group.py, which runs core.py)."""
