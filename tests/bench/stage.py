"""Two libvirt hosts of the lab with migrator's daemons, one guest on storage that both share, and the two ways to move it.

The guest is libvirt's own (no daemon made it), so that it may be moved behind migrator's back: the bare call. Its flags and parameters
are computed by the driver's own function from the plan that the conductor made for the same way.
"""
import dataclasses
import json
import pathlib
import subprocess
import tempfile
import time
import uuid

import fixtures
import libvirt

from migrator.compute.drivers.libvirt import migration
from migrator.rpc import facts
from tests.bench.watch import OPTIONS, Watch, orchestrate
from tests.cloud import Cloud
from tests.lab import Console, guest, wait_until

DISK_MIB = 64


class Stage(fixtures.Fixture):
    """See the module's description. database: sqlite, mysql or postgresql."""

    def __init__(self, database):
        super().__init__()
        self._database = database

    def _setUp(self):
        self.cloud = self.useFixture(Cloud(database=self._database, options={'': OPTIONS}))
        self.lab, self.api = self.cloud.lab, self.cloud.api
        self.hosts = list(self.cloud.hosts)
        self.database_url = self.lab.configuration.database_url()
        self.transport_url = self.lab.configuration.broker()
        self.watch = Watch(self.database_url)
        self.addCleanup(self.watch.close)
        self._libvirts = {name: libvirt.open(host.uri) for name, host in self.cloud.hosts.items()}
        for connection in self._libvirts.values():
            self.addCleanup(connection.close)
        self._plans = {}
        self.instance, self.at = str(uuid.uuid4()), self.hosts[0]
        self._boot()

    @property
    def other(self):
        """The host at which the guest is not."""
        return next(name for name in self.hosts if name != self.at)

    @property
    def broker_pid(self):
        """Process that the broker runs below."""
        return json.loads((self.lab.folder / 'services' / 'rabbitmq.json').read_text())['pid']

    def daemon_pids(self):
        """Process ids of migrator's daemons, by name."""
        return {name: daemon.pid for name, daemon in self.cloud.daemons.items()}

    def _boot(self):
        folder = self.lab.shared / self.instance
        folder.mkdir()
        image = folder / 'vda.qcow2'
        subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', image, f'{DISK_MIB}M'], check=True, capture_output=True, timeout=30)
        xml = guest.domain_xml(self.instance, 'bench', folder, self.lab.initrd, guest.command_line(), disks=[('vda', 'qcow2', image)])
        host = self.cloud.hosts[self.at]
        with Console(self.lab.console_paths(self.instance)) as console, tempfile.NamedTemporaryFile('w', suffix='.xml') as file:
            pathlib.Path(file.name).write_text(xml)
            host.virsh('define', file.name)
            host.virsh('start', self.instance)
            console.wait_for('tick 20 ', 60)
        self._wait_adopted(self.at)

    def _wait_adopted(self, host):
        def there():
            row = self.watch.instance(self.instance)
            return row is not None and (row.host, row.state) == (host, 'running')
        wait_until(there, 60, f'the guest at {host} in the catalogue', interval=0.05)

    def orchestrated(self, bandwidth=0):
        """Have migrator move the guest to the other host; returns a Moved."""
        way = (self.at, self.other)
        moved = orchestrate(self.api, self.watch, self.instance, self.other, bandwidth)
        self.at = self.other
        self._plans[way] = facts.from_wire(facts.Plan, self.watch.migration(moved.request_id).plan)
        return moved

    def bare(self, bandwidth=0):
        """Move the guest to the other host by the hypervisor's call alone; returns its seconds, once the catalogue knows of it.

        An orchestrated migration must have gone the same way before.
        """
        plan = dataclasses.replace(self._plans[self.at, self.other], bandwidth_mib=bandwidth)
        domain = self._libvirts[self.at].lookupByUUIDString(self.instance)
        live, inactive = (domain.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE | libvirt.VIR_DOMAIN_XML_MIGRATABLE | more)
                          for more in (0, libvirt.VIR_DOMAIN_XML_INACTIVE))
        parameters, flags = migration.call(plan, live, inactive)
        began = time.monotonic()
        domain.migrateToURI3(plan.connection_uri, parameters, flags)
        seconds = time.monotonic() - began
        self.at = self.other
        self._wait_adopted(self.at)
        return seconds
