"""All tests of migrator: unit (no servers), functional (real servers and the lab) and faults (processes that die)."""
