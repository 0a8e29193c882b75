"""Two hosts of the lab as the contract suite of compute drivers wants them, and the damage that tests do to them."""
import os
import pathlib
import signal
import subprocess
import tempfile
import threading
import uuid

import libvirt

from migrator.rpc import facts
from tests.contract import harness
from tests.functional.driver_process import DriverProcess
from tests.functional.lab_volumes import LabVolumes
from tests.lab import disk, guest, processes
from tests.lab.config import Configuration
from tests.lab.console import Console

STAMP_AT = 1 << 20
DISK_SIZE = 48 << 20
#: What a guest does that writes to the first volume that it gets.
BUSY = {'write': 0.05, 'device': 'vdb'}
#: For a guest to let go of a volume: what one without KVM on a busy machine needs, several times over.
DETACH_SECONDS = 12


class LibvirtHarness(harness.ComputeHarness):
    """Drivers on alpha and beta of a lab as new. A guest counts as started once it speaks on its console."""

    slow_mib = 2
    restless_mib = 20

    def __init__(self, lab):
        self.lab = lab
        self.kernel = str(guest.kernel())
        self.hosts = {name: lab.host(name) for name in ('alpha', 'beta')}
        self.volumes = LabVolumes(lab)
        self.a, self.b = (BootingDriver(self, name) for name in self.hosts)

    def config(self, name):
        """Write the configuration of a driver on host `name`, without a broker; returns its path."""
        configuration = Configuration(self.lab)
        configuration.transport_url = 'fake:'
        return configuration.agent(name, compute={'detach_timeout': DETACH_SECONDS})

    def spec(self, shared=False, restless=False, disks=1, busy=False, **options):
        """See ComputeHarness.spec; options as for tests.lab.guest.command_line."""
        identity = str(uuid.uuid4())
        directory = str(self.lab.shared if shared else self.lab.instances)
        command = guest.command_line(**{'dirty': 64 if restless else None, **(BUSY if busy else {}), **options})
        return facts.InstanceSpec(
            uuid=identity, name=f'guest-{identity[:8]}', memory_mib=guest.MEMORY_MIB + (80 if restless else 0), kernel=str(guest.kernel()),
            initrd=str(self.lab.initrd), cmdline=command,
            disks=tuple(facts.NewDisk(target=f'vd{letter}', size=DISK_SIZE, directory=directory) for letter in 'abcd'[:disks]))

    def outside(self, driver, path):
        """Where a path of driver's host is found from out here."""
        inside, host = str(self.lab.instances), self.hosts[driver.host]
        return pathlib.Path(str(host.instances_outside) + path[len(inside):] if path.startswith(inside + '/') else path)

    def drop_foreign_file(self, driver, spec):
        first = spec.disks[0]
        path = self.outside(driver, f'{first.directory}/{spec.uuid}/{first.target}.{first.format}')
        path.parent.mkdir(exist_ok=True)
        path.write_text('precious')

    def files(self, driver, instance_uuid):
        host = self.hosts[driver.host]
        places = (host.instances_outside, self.lab.shared, host.state / 'incoming')
        return frozenset(f'{place.name}/{path.relative_to(place)}' for place in places for path in place.rglob('*')
                         if instance_uuid in str(path) and 'migrator-storage-id' not in path.name)

    def marker(self, driver, instance_uuid):
        host = self.hosts[driver.host]
        paths = (host.state / 'incoming' / instance_uuid, host.instances_outside / instance_uuid / '.migrator-migration')
        found = {path.read_text().strip() for path in paths if path.exists()}
        if len(found) > 1:
            raise AssertionError(f'the markers at {driver.host} differ: {found}')
        return found.pop() if found else ''

    def first_disk(self, driver, instance_uuid):
        """Path of a guest's first disk at driver's host, from out here."""
        places = (self.hosts[driver.host].instances_outside, self.lab.shared)
        return next(path for path in (place / instance_uuid / 'vda.qcow2' for place in places) if path.exists())

    def stamp(self, driver, instance_uuid, text):
        with tempfile.NamedTemporaryFile('w') as pattern:
            pattern.write(text.ljust(512))
            pattern.flush()
            subprocess.run(['qemu-io', '-f', 'qcow2', '-c', f'write -s {pattern.name} {STAMP_AT} 512',
                            self.first_disk(driver, instance_uuid)], check=True, capture_output=True, timeout=30)

    def stamped(self, driver, instance_uuid):
        content = disk.raw_content(self.first_disk(driver, instance_uuid), 'qcow2', STAMP_AT + 512)
        return content[STAMP_AT:STAMP_AT + 512].decode('ascii', 'replace').strip(' \0')

    def pause(self, driver, instance_uuid):
        self.hosts[driver.host].virsh('suspend', instance_uuid)

    def resume(self, driver, instance_uuid):
        self.hosts[driver.host].virsh('resume', instance_uuid)

    def power_off(self, driver, instance_uuid):
        self.hosts[driver.host].virsh('destroy', instance_uuid)

    def pause_by_migration(self, driver, instance_uuid):
        """Break a real hand-over: the destination's libvirtd hangs when the source asks it to finish, then both are killed."""
        source = self.hosts[driver.host]
        destination = next(host for host in self.hosts.values() if host is not source)
        job = RawMigration(source, destination, instance_uuid, bandwidth_mib=self.slow_mib)
        job.wait_copying()
        hung = destination.libvirtd_pid
        processes.send(hung, signal.SIGSTOP)
        job.domain.migrateSetMaxSpeed(1024)
        job.wait_handed_over()
        for host in (source, destination):
            host.kill_libvirtd()
        job.wait_ended()
        for host in (source, destination):
            host.start_libvirtd()
            host.wait_ready()
        processes.wait_until(lambda: instance_uuid not in destination.domains(), 20, 'end of the incoming guest')

    def carry(self, instance_uuid):
        here, there = self.hosts.values()
        with tempfile.NamedTemporaryFile('w') as definition:
            # The console's log goes where there is a directory for it.
            definition.write(here.virsh('dumpxml', '--inactive', instance_uuid).replace(f'{self.lab.instances}/', f'{self.lab.shared}/'))
            definition.flush()
            there.virsh('define', definition.name)
        here.virsh('undefine', instance_uuid)
        there.virsh('start', instance_uuid)

    def export(self, writable=True):
        return self.volumes.export(writable)

    def set_export(self, connection, answers):
        self.volumes.restore() if answers else self.volumes.cut()

    def close(self):
        for driver in (self.a, self.b):
            driver.close()
        self.volumes.close()


class BootingDriver(DriverProcess):
    """A driver whose guests count as started once they have spoken: before that they have no memory that takes time to copy."""

    def __init__(self, harness_, name):
        self._harness = harness_
        super().__init__(harness_.hosts[name], name, harness_.config(name))

    def start_instance(self, instance_uuid):
        """Start the guest and wait for its first words."""
        if self.locate(instance_uuid).state != 'off':
            return self._call('start_instance', (instance_uuid,))
        with Console(self._harness.lab.console_paths(instance_uuid)) as console:
            said = len(console.ticks())
            result = self._call('start_instance', (instance_uuid,))
            processes.wait_until(lambda: len(console.ticks()) > said, 40, 'boot of the guest')
        return result


class RawMigration:
    """libvirt's own call, past the driver, with every qcow2 disk copied; it runs in a thread from the start."""

    def __init__(self, source, destination, instance_uuid, bandwidth_mib):
        self.uuid, self.destination, self.error = instance_uuid, destination, None
        self._connection = libvirt.open(source.uri)
        self.domain = self._connection.lookupByUUIDString(instance_uuid)
        flags = (libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PEER2PEER | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
                 | libvirt.VIR_MIGRATE_PERSIST_DEST | libvirt.VIR_MIGRATE_NON_SHARED_DISK)
        parameters = {libvirt.VIR_MIGRATE_PARAM_URI: f'tcp://{destination.ip}', libvirt.VIR_MIGRATE_PARAM_BANDWIDTH: bandwidth_mib}
        self._thread = threading.Thread(target=self._run, args=(destination.peer_uri, parameters, flags), daemon=True)
        self._thread.start()

    def _run(self, uri, parameters, flags):
        try:
            self.domain.migrateToURI3(uri, parameters, flags)
        except libvirt.libvirtError as error:
            self.error = error

    def wait_copying(self):
        """Wait until memory is being copied: from then on the destination's libvirtd is not needed until the end."""
        processes.wait_until(lambda: self._remaining() > 0, 30, f'a running job ({self.error})')

    def _remaining(self):
        return self.domain.jobStats().get(libvirt.VIR_DOMAIN_JOB_MEMORY_PROCESSED, 0)

    def wait_handed_over(self):
        """Wait until the source has sent everything and waits for the destination to finish."""
        processes.wait_until(lambda: self.domain.state() == [libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_MIGRATION]
                             and self._phase() == 'perform3_done', 30, 'end of the copying')

    def _phase(self):
        """The phase that libvirtd has written down for its own restart."""
        status = pathlib.Path(self._connection.getURI().partition('socket=')[2]).parent / 'qemu' / f'{self.domain.name()}.xml'
        return status.read_text().partition("phase='")[2].partition("'")[0]

    def wait_ended(self):
        """Wait until libvirt's call has returned."""
        self._thread.join(30)
        if self._thread.is_alive():
            raise AssertionError("libvirt's call has not returned")


def emulator(host, instance_uuid):
    """Process id, out here, of the QEMU of a guest on `host`; None if there is none."""
    for pid in host.processes():
        words = processes.arguments(pid)
        if words and 'qemu-system' in os.path.basename(words[0]) and instance_uuid in ' '.join(words):
            return pid
    return None
