"""Benchmarks: the same S3 work against S4 and its peers in one run, so that ratios mean something."""
