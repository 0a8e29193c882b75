"""The model check: every interleaving, within bounds, of the pure core with a small model of agents, messages, hypervisors and disks.

`world` is the model, `search` walks over it, `rules` says what must always hold. The decisions are the product's own
(`migrator.conductor.decide`), so are the tables; only what surrounds them is modelled.
"""
