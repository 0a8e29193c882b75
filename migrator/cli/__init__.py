"""The command line `migrator`: a thin client of the conductors, built on cliff. It needs no eventlet and patches nothing."""
