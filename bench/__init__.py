"""Benchmarks. They compare Chat Push with its alternatives, side by side in one run."""
