"""The times that a take-over consists of: what a dead conductor held is taken up by another one within ten seconds."""
import unittest

from oslo_config import cfg

from migrator import config
from migrator.rpc import contract

#: What is promised, and what is left of it for the work itself.
PROMISED, WORK = 10.0, 2.0


class TestTakeoverTimes(unittest.TestCase):
    """The defaults leave room for the work."""

    def setUp(self):
        self.conf = config.register(cfg.ConfigOpts())
        self.conf([], project='migrator', default_config_files=[], default_config_dirs=[])

    def test_a_transition_that_died_with_its_conductor(self):
        """Given a claim of a dead conductor, the sweep of another one finds it due in time."""
        settings = self.conf.conductor
        self.assertLessEqual(settings.claim_seconds + settings.sweep_interval + WORK, PROMISED)

    def test_a_report_that_died_with_its_conductor(self):
        """Given a report that a conductor took and died with, the agent gives up waiting and tells another one in time."""
        patience = contract.AGENT['operation_finished'].timeout
        self.assertLessEqual(patience + self.conf.compute.report_interval + WORK, PROMISED)
