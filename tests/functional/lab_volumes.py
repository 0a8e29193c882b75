"""Volumes on a real array in a lab: a storage daemon in svc, reached by all hosts, and the driver that a volume agent has for it."""
import types
import uuid

from migrator.volume.drivers.qsd.driver import QsdDriver
from tests.lab.array import Array

SIZE = 48 << 20


class LabVolumes:
    """Made and exported one by one; the array starts with the first, and loses its power when a test says so."""

    def __init__(self, lab):
        self._lab = lab
        self._array = Array('array', place=lab.svc)
        self._driver = None

    def export(self, writable=True):
        """Make a volume and export it; returns its Connection."""
        if self._driver is None:
            self._array.setUp()
            conf = types.SimpleNamespace(
                pools=self._array.pools, qmp_socket=str(self._array.socket), array_timeout=10.0, array_patience=30.0, format='raw',
                take_over='async', tls_credentials='', listen_address=self._array.address, listen_port=self._array.port)
            self._driver = QsdDriver(conf, 'svc', 'array')
            self._driver.start()
        name = f'volume-{uuid.uuid4()}'
        self._driver.create('fast', name, SIZE, name.partition('-')[2])
        return self._driver.export('fast', name, name, writable)

    def cut(self):
        """Cut the array's power."""
        self._array.kill()

    def start_empty(self):
        """Start the array, which knows of no volume until its driver comes."""
        self._array.start()

    def restore(self):
        """Let the array serve everything again, whether it was started or not."""
        self._array.restart()
        self._driver.pools()            # the driver brings back what the array forgot

    def clients(self):
        """Count the connections to the array, as it has them."""
        return len(self._lab.svc.run(['ss', '-Htn', 'state', 'established', f'sport = :{self._array.port}']).stdout.splitlines())

    def close(self):
        """End the array. Idempotent."""
        if self._driver is not None:
            self._driver.stop()
            self._array.cleanUp()
            self._driver = None
