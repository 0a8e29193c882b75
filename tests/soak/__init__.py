"""The soak: `tools/soak`. Random migrations and random faults for minutes, with the promise checked throughout."""
