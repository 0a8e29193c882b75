"""The volume driver `fake`: simulated arrays in one world that outlives the agents, for tests and for trying out.

Data is simulated too: a LUN remembers one byte for each block of 4 KiB, which is enough to see whether a copy is a copy.
"""
