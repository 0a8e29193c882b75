"""Volumes as plain files: no array, no features of migration, and so what is migrated here is copied.

Each LUN that is exported is served by a qemu-storage-daemon of its own, at a port of its own, which the driver starts and which outlives
the agent. What is to be served is in the durable record beside the LUN (`migrator.volume.records`), from which it is brought back.
"""
