"""The contract suite of compute drivers: mix `ComputeDriverContract` into a test case and give it a harness.

    class TestMyDriver(ComputeDriverContract, unittest.TestCase):
        def make_harness(self):
            return MyHarness()

The scenarios lie by subject in `compute_facts`, `compute_instances`, `compute_volumes` and `compute_migration`.
"""
from tests.contract import compute_facts, compute_instances, compute_migration, compute_volumes


class ComputeDriverContract(compute_facts.Scenarios, compute_instances.Scenarios, compute_migration.Steps, compute_migration.Moves,
                            compute_volumes.Scenarios, compute_volumes.Stalls):
    """Every scenario that a compute driver must pass."""
