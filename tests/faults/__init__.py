"""Tests that kill processes and cut connections, and look at how the work ends."""
