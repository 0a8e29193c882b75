"""Tests of the conductor: the pure core cell by cell, requests over RPC, and whole workflows on simulated hosts."""
