"""Benchmarks: `tools/bench`. What is measured, how and why is in doc/source/benchmarks.rst."""
