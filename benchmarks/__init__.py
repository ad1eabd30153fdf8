"""Benchmarks: `python -m benchmarks.run`. README.md beside this says how to read them."""
