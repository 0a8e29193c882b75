"""Broker and database away at the same time, and everything killed at once."""
from tests.faults.outages import MINUTE, OutageCase


class EverythingCases:
    """Both servers are the class's own."""

    def test_broker_and_database_gone(self):
        """Given migrations at every step, when broker and database die together and come back, then all end well."""
        def end():
            self.server.request('revive')
            self.broker.request('revive')
        self.outage(self.kill_servers, end, MINUTE)

    def test_everything_killed(self):
        """Given migrations at every step, when all daemons, the broker and the database are killed and started again, then all end."""
        def kill():
            for daemon in self.cluster.daemons.values():
                daemon.kill()
            self.kill_servers()

        def start():
            self.server.request('revive')
            self.broker.request('revive')
            for daemon in self.cluster.daemons.values():
                daemon.start()
            for daemon in self.cluster.daemons.values():
                daemon.wait_for('is ready', 30)
        self.forgiving = True
        self.outage(kill, start, 2)

    def kill_servers(self):
        """SIGKILL for both."""
        self.broker.request('crash')
        self.server.request('crash')


class TestEverything(EverythingCases, OutageCase):
    """With MariaDB."""


class TestEverythingWithPostgreSQL(EverythingCases, OutageCase):
    """With PostgreSQL."""

    database = 'postgresql'
