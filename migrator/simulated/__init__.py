"""What simulated hypervisors and simulated arrays have in common: where their world lies, and the faults that are ordered for them."""
