"""The lab as a fixture. One lab serves all tests of a process: building it takes seconds, making it as new a fraction of one."""
import atexit
import os
import tempfile

import fixtures

from tests.lab.lab import Lab

_shared = {}


def shared_lab(hosts=2):
    """The lab of this test process, built at the first call; one with more hosts replaces one with fewer. It ends with the process."""
    lab = _shared.get('lab')
    if lab is None or len(lab.hosts) < hosts:
        if lab is not None:
            release_lab()
        lab = Lab(tempfile.mkdtemp(prefix='mlab-'), hosts)
        lab.up()
        _shared.update(lab=lab, process=os.getpid())
        if 'registered' not in _shared:
            atexit.register(release_lab)
            _shared['registered'] = True
    return _shared['lab']


def release_lab():
    """Take down the lab of this test process, if it has one; a forked child leaves its parent's alone."""
    lab = _shared.pop('lab', None)
    if lab is not None and _shared['process'] == os.getpid():
        lab.down()


class LabFixture(fixtures.Fixture):
    """A lab as new for one test, as `self.lab`; after the test no daemon, guest or file of it is left."""

    def __init__(self, hosts=2, services=()):
        """hosts: how many at least. services: which to start, of rabbitmq, mariadb, postgresql; they run on for later tests."""
        super().__init__()
        self._hosts, self._services = hosts, services
        self.lab = None

    def _setUp(self):
        self.lab = shared_lab(self._hosts)
        self.lab.reset()
        self.addCleanup(self.lab.reset)
        self.urls = {kind: self.lab.start_service(kind) for kind in self._services}

    def host(self, name):
        """The lab's host of that name."""
        return self.lab.host(name)
