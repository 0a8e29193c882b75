"""The connection to libvirtd, with libvirt replaced by a recorder: which calls share one, and what becomes of each."""
import fixtures
import libvirt

from migrator import exceptions
from migrator.compute.drivers.libvirt import connection
from tests import base


class Opened:
    """One connection that was opened."""

    def __init__(self):
        self.alive, self.closed = True, False

    def setKeepAlive(self, interval, count):
        return None

    def isAlive(self):
        return self.alive

    def close(self):
        self.closed = True


class ConnectionTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.opened = []
        self.useFixture(fixtures.MonkeyPatch('migrator.compute.drivers.libvirt.connection._start_event_loop', lambda: None))
        self.useFixture(fixtures.MonkeyPatch('libvirt.open', self.open))
        self.connection = connection.Connection('qemu:///system')
        self.connection.open()

    def open(self, uri):
        self.opened.append(Opened())
        return self.opened[-1]

    def test_short_calls_share_a_connection(self):
        used = [self.connection.run(lambda c: c) for _ in range(3)]
        self.assertEqual([self.opened[0]] * 3, used)

    def test_a_call_that_lasts_has_a_connection_of_its_own_which_is_closed(self):
        def lasting(apart, argument):
            self.assertIsNot(self.opened[0], apart)
            self.assertIs(self.opened[0], self.connection.run(lambda c: c))
            self.assertFalse(apart.closed)
            return argument
        self.assertEqual('told', self.connection.run_apart(lasting, 'told'))
        self.assertEqual([False, True], [c.closed for c in self.opened])

    def test_a_call_that_lasts_is_not_repeated_and_its_connection_is_closed_when_it_fails(self):
        calls = []

        def failing(apart):
            calls.append(apart)
            apart.alive = False
            raise libvirt.libvirtError('cannot recv data')
        self.assertRaises(exceptions.DriverError, self.connection.run_apart, failing)
        self.assertEqual(1, len(calls))
        self.assertTrue(calls[0].closed)

    def test_a_short_call_is_repeated_on_a_new_connection_when_the_old_one_has_died(self):
        def failing_once(shared):
            if shared is self.opened[0]:
                shared.alive = False
                raise libvirt.libvirtError('cannot recv data')
            return 'told'
        self.assertEqual('told', self.connection.run(failing_once))

    def test_after_the_end_there_is_no_call(self):
        self.connection.close()
        self.assertTrue(self.opened[0].closed)
        self.assertRaises(exceptions.DriverError, self.connection.run, lambda c: c)
        self.assertRaises(exceptions.DriverError, self.connection.run_apart, lambda c: c)
        self.assertEqual(1, len(self.opened))
