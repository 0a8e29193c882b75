"""Tests of the benchmark's arithmetic."""
