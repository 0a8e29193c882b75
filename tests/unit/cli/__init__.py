"""The command line with a client of the test's own: no broker, no conductor, no time."""
