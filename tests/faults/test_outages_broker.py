"""The message broker restarted, frozen and gone, with migrations at every step."""
from tests.faults.outages import FULL, MINUTE, OutageCase


class TestBroker(OutageCase):
    """RabbitMQ of one's own; who is away is only the broker."""

    own_database = False

    def test_restarted(self):
        """Given migrations at every step, when the broker is stopped in order and started again, then all end well."""
        self.outage(lambda: self.broker.request('halt'), lambda: self.broker.request('revive'), 0)

    def test_killed_and_gone_for_a_minute(self):
        """Given migrations at every step, when the broker is killed and comes back after a minute, then all end well."""
        self.outage(lambda: self.broker.request('crash'), lambda: self.broker.request('revive'), MINUTE)

    def test_frozen_for_longer_than_the_time_outs(self):
        """Given migrations at every step, when the broker stands still for longer than any call waits, and goes on, then all end well."""
        self.outage(lambda: self.broker.request('freeze'), lambda: self.broker.request('thaw'), MINUTE)


if FULL:
    class TestBrokerWithPostgreSQL(TestBroker):
        """The same with PostgreSQL."""

        database = 'postgresql'
