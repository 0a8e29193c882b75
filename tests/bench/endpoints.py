"""The two ends of the copies that are measured: LUNs of two arrays, with a delay before each if that is wanted."""
import contextlib
import os
import pathlib
import subprocess
import tempfile
import types

import fixtures

from migrator.volume.drivers.qsd.driver import QsdDriver
from tests.lab.array import Array
from tests.lab.processes import wait_until
from tests.service_keeper import free_port

MIB = 1 << 20
POOL, LUN = 'fast', 'volume'
OWNER = '6a1f0f2e-52a2-4d5e-9d0f-0b6d8f7f1d11'
ADDRESS = '127.0.0.1'


class Endpoints(fixtures.Fixture):
    """A LUN of random data at one array, and one at another array that is made anew for each copy.

    folder: where the arrays have their files. size: bytes of a LUN. spread: one MiB out of so many has data. delay: seconds that
    each end waits before it answers a request, 0.0 is none.
    """

    def __init__(self, folder, size, spread=1, delay=0.0):
        super().__init__()
        self._folder, self.size, self._spread, self._delay = folder, size, spread, delay
        self.data = len(range(0, size, spread * MIB)) * MIB

    def _setUp(self):
        self.folder = pathlib.Path(self.useFixture(fixtures.TempDir(str(self._folder))).path)
        with _temporary_files_in(self.folder):
            self._arrays = [self.useFixture(Array(name)) for name in ('source', 'destination')]
        self._drivers = [self._driver(array) for array in self._arrays]
        self._delays = contextlib.ExitStack()
        self.addCleanup(self._delays.close)
        with open(self._make(0), 'r+b') as stream:
            for place in range(0, self.size, self._spread * MIB):
                stream.seek(place)
                stream.write(os.urandom(MIB))
        self._make(1)
        self.uris = [self._export(number) for number in (0, 1)]

    def renew(self):
        """Make the destination anew; the source stays, and both addresses do."""
        self._delays.close()
        driver = self._drivers[1]
        driver.unexport(POOL, LUN, LUN, force=True)
        driver.delete(POOL, LUN)
        os.sync()                       # what an earlier copy left to be written is not to be paid for by the next one
        self._make(1)
        self.uris = [self._export(number) for number in (0, 1)]

    def allocated(self):
        """Bytes that the destination takes."""
        return self._drivers[1].show(POOL, LUN).allocated

    def _driver(self, array):
        driver = QsdDriver(types.SimpleNamespace(
            pools=array.pools, qmp_socket=str(array.socket), array_timeout=10.0, array_patience=30.0, format='raw', take_over='async',
            tls_credentials='', listen_address=array.address, listen_port=array.port), 'host', array.name)
        driver.start()
        self.addCleanup(driver.stop)
        return driver

    def _make(self, number):
        self._drivers[number].create(POOL, LUN, self.size, OWNER)
        return pathlib.Path(self._arrays[number].pools[POOL]) / f'{LUN}.raw'

    def _export(self, number):
        uri = self._drivers[number].export(POOL, LUN, LUN, True).uri
        return self._delays.enter_context(_delayed(uri, self._delay)) if self._delay else uri


@contextlib.contextmanager
def _delayed(uri, seconds):
    """Put nbdkit before an export, which lets every request wait; gives the new address."""
    port, wait = free_port(ADDRESS), f'{seconds * 1000:.0f}ms'
    listen = ['--foreground', '--exit-with-parent', '--ipaddr', ADDRESS, '--port', str(port)]
    delays = [f'{what}={wait}' for what in ('rdelay', 'wdelay', 'delay-zero', 'delay-extents')]
    with tempfile.TemporaryFile() as said, subprocess.Popen(['nbdkit', *listen, '--filter=delay', 'nbd', f'uri={uri}', *delays],
                                                            stdin=subprocess.DEVNULL, stderr=said) as process:
        try:
            wait_until(lambda: process.poll() is not None or _answers(port), 10, 'nbdkit')
            if process.poll() is not None:
                said.seek(0)
                raise RuntimeError(f'nbdkit ended with exit code {process.returncode}: {said.read().decode(errors="replace")[-400:]}')
            yield f'nbd://{ADDRESS}:{port}/{LUN}'
        finally:
            process.kill()


def _answers(port):
    return subprocess.run(['nbdinfo', '--size', f'nbd://{ADDRESS}:{port}/{LUN}'], capture_output=True, timeout=10).returncode == 0


@contextlib.contextmanager
def _temporary_files_in(folder):
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before
