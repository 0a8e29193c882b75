"""An array of the lab: one qemu-storage-daemon with its pools, which can be killed, frozen and started again like real iron."""
import pathlib
import signal
import subprocess

import fixtures

from tests.lab.processes import wait_until
from tests.service_keeper import free_port


class Array(fixtures.Fixture):
    """A storage daemon on loopback. folder: where pools and the socket are; pools: names of the pools."""

    ADDRESS = '127.0.0.1'

    def __init__(self, name, pools=('fast',)):
        super().__init__()
        self.name = name
        self.pool_names = pools
        self.process = None

    def _setUp(self):
        self.folder = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.pools = {name: str(self.folder / name) for name in self.pool_names}
        for path in self.pools.values():
            pathlib.Path(path).mkdir()
        self.socket = self.folder / 'qmp'
        self.log = self.folder / 'array.log'
        self.port = free_port(self.ADDRESS)
        self.addCleanup(self.kill)
        self.start()

    def start(self):
        """Start the daemon, empty, and wait until its monitor listens."""
        self.socket.unlink(missing_ok=True)
        with open(self.log, 'ab') as log:
            self.process = subprocess.Popen(
                ['qemu-storage-daemon', '--chardev', f'socket,path={self.socket},server=on,wait=off,id=qmp', '--monitor', 'qmp',
                 '--nbd-server', f'addr.type=inet,addr.host={self.ADDRESS},addr.port={self.port},max-connections=0'],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(lambda: self.socket.exists() or self.process.poll() is not None, 10, f'array {self.name}')
        if self.process.poll() is not None:
            raise RuntimeError(f'array {self.name} ended: {self.log.read_text()}')

    def kill(self):
        """SIGKILL; what it had not written is gone."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def restart(self):
        """Kill it and start it again."""
        self.kill()
        self.start()

    def files(self, pool='fast'):
        """Name what lies in a pool."""
        return {path.name for path in pathlib.Path(self.pools[pool]).iterdir()}
