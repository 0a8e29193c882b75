"""Unit tests of the compute agent and its drivers."""
