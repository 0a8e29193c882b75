"""A simulated hypervisor: many hosts, guests and storage in one file, for tests, benchmarks and for trying migrator out."""
