"""Suites that every driver of a kind must pass, the simulated and the real ones alike."""
