"""The demonstration that `tools/demo` runs: a guest is created, and live-migrated there and back while it writes.

One story (tests/demo/story.py) on two stages: simulated hosts in one process (tests/demo/simulated.py), and real daemons, libvirt
and QEMU in the lab (tests/demo/lab.py). What is shown is checked, and the exit code says whether all of it was right.
"""
