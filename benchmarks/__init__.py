"""Measurements that hold the project to its numbers: each module is run as `python -m benchmarks.NAME` and prints what it saw."""
