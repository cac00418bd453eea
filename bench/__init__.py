"""Benchmarks: ratios measured side by side in one run, against what people would otherwise build."""
