"""An array of the lab: one qemu-storage-daemon with its pools, which can be killed, frozen and started again like real iron."""
import contextlib
import itertools
import json
import pathlib
import signal
import socket
import subprocess

import fixtures

from migrator.volume.pools import MARK
from tests.lab.errors import LabError
from tests.lab.processes import wait_until
from tests.service_keeper import free_port

#: Ports of arrays in a lab, where nothing else listens there.
_PORTS = itertools.count(10900)


class Array(fixtures.Fixture):
    """A storage daemon on loopback, or at a place of a lab, reached by its hosts. folder: where pools and the socket are."""

    def __init__(self, name, pools=('fast',), place=None, keys=None):
        """pools: their names. place: such as the lab's `svc`; None is this machine. keys: a folder of certificates; then it wants TLS."""
        super().__init__()
        self.name = name
        self.pool_names = pools
        self.place = place
        self.keys = keys
        self.address = place.ip if place else '127.0.0.1'
        self.process = None

    def _setUp(self):
        self.folder = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.pools = {name: str(self.folder / name) for name in self.pool_names}
        for path in self.pools.values():
            pathlib.Path(path).mkdir()
        self.socket = self.folder / 'qmp'
        self.log = self.folder / 'array.log'
        self.port = next(_PORTS) if self.place else free_port(self.address)
        self.addCleanup(self.kill)
        self.start()

    def start(self):
        """Start the daemon, empty, and wait until its monitor listens."""
        self.socket.unlink(missing_ok=True)
        objects = ['--object', f'tls-creds-x509,id=keys,endpoint=server,dir={self.keys},verify-peer=on'] if self.keys else []
        with open(self.log, 'ab') as log:
            start = self.place.popen if self.place else subprocess.Popen
            self.process = start(
                ['qemu-storage-daemon', *objects, '--chardev', f'socket,path={self.socket},server=on,wait=off,id=qmp', '--monitor', 'qmp',
                 '--nbd-server', f'addr.type=inet,addr.host={self.address},addr.port={self.port},max-connections=0'
                 + (',tls-creds=keys' if self.keys else '')],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(lambda: self.listens() or self.process.poll() is not None, 30, f'array {self.name}')
        if self.process.poll() is not None:
            raise RuntimeError(f'array {self.name} ended: {self.log.read_text()}')

    def listens(self):
        """Whether the monitor can be reached; its socket is there a moment before that."""
        with socket.socket(socket.AF_UNIX) as link:
            return link.connect_ex(str(self.socket)) == 0

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
        """Name what lies in a pool, but for its mark, which stays."""
        return {path.name for path in pathlib.Path(self.pools[pool]).iterdir()} - {MARK}

    def ask(self, command, **arguments):
        """Ask the daemon itself, by QMP; returns its answer. Its monitor serves one client at once: an agent's session goes first.

        OSError if it does not answer, LabError if it refuses.
        """
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as link:
            link.settimeout(20)
            link.connect(str(self.socket))
            with link.makefile('rw') as stream:
                stream.readline()                       # the greeting
                for request in ({'execute': 'qmp_capabilities'}, {'execute': command, 'arguments': arguments}):
                    stream.write(json.dumps(request) + '\n')
                    stream.flush()
                    answer = _next(stream)
                    while 'event' in answer:
                        answer = _next(stream)
        if 'error' in answer:
            raise LabError(f'{command}: {answer["error"]["desc"]}')
        return answer['return']

    def exports(self):
        """Ask the daemon what it exports; returns the names of the files that are behind it, one for each export."""
        behind = {node['node-name']: node['image']['filename'] for node in self.ask('query-named-block-nodes')}
        return sorted(pathlib.PurePath(behind[export['node-name']]).name for export in self.ask('query-block-exports'))


def _next(stream):
    line = stream.readline()
    if not line:
        raise ConnectionError('the storage daemon has closed the connection')
    return json.loads(line)
