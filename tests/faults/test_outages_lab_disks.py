"""Disks of a host are full while a guest is moved with real hypervisors: the storage at the destination, and what the agents remember."""
import contextlib
import pathlib

from migrator.states import Status
from tests.cloud import DISK
from tests.faults.outage_case import FULL, OutageCase, on_postgresql, sampled


@sampled(daily=False)
class TestFullDisks(OutageCase):
    """Small file systems, made in the host's own mount namespace."""

    @contextlib.contextmanager
    def small(self, name, path, size_mib):
        """Give a host a file system of its own at `path` for a with block, with its agent started anew on it. Gives how to fill it."""
        host, daemon = self.lab.host(name), self.cloud.daemons[name]
        daemon.terminate(30)
        host.run(['mount', '-t', 'tmpfs', '-o', f'size={size_mib}m', 'tmpfs', path])
        try:
            self.cloud.restart(name)
            self.cloud.wait_hosts_up()
            yield pathlib.Path(f'/proc/{host.keeper}/root{path}')
        finally:
            daemon.terminate(30)
            host.run(['umount', '--lazy', path])
            self.cloud.restart(name)

    @staticmethod
    def fill(folder):
        """Leave no room in a file system; returns the file that takes it."""
        filler = folder / 'filler'
        with open(filler, 'wb', buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b'x' * 65536):
                continue
        with open(filler, 'ab', buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b'x' * 512):
                continue
        return filler

    def test_the_destinations_storage(self):
        """Given storage that becomes full while the guest's disk is copied to it, all is undone, and it can be moved when there is room."""
        guest = self.cloud.boot('alpha', fill=12)
        with self.small('beta', str(self.lab.instances), 64) as storage:
            with self.copying(guest, 'beta', 'File', bandwidth_mib=1) as migration:
                filler = self.fill(storage)
                ended = self.cloud.ended(migration)
            self.assert_outcome(ended, guest, 'alpha', Status.FAILED)
            self.assertEqual([], [path for path in storage.iterdir() if guest.uuid in path.name])
            filler.unlink()
        self.assert_outcome(self.cloud.migrate(guest, 'beta'), guest, 'beta')

    def test_the_destinations_storage_before_the_start(self):
        """Given storage that has no room for the guest's disk, the migration is refused with both sizes, and nothing was touched."""
        guest = self.cloud.boot('alpha')
        with self.small('beta', str(self.lab.instances), 16):
            ended = self.cloud.migrate(guest, 'beta')
            self.assert_outcome(ended, guest, 'alpha', Status.FAILED)
            self.assertNotIn('pre_live_migration', str(ended['events']))
            self.assertRegex(ended['error'], f'disks of {DISK} bytes are to be copied .* has [0-9]+ bytes free there')

    def test_the_destinations_journal(self):
        """Given a destination that cannot remember, it takes no work and says why; its cleanup is a debt until there is room."""
        guest, here, there = self.standing()
        with self.small(there, str(self.lab.host(there).state), 2) as state:
            filler = self.fill(state)
            ended = self.cloud.migrate(guest, there)
            self.assertEqual((Status.FAILED, here), (ended['status'], self.api.instance_show(guest.uuid)['host']), ended)
            self.assertIn('journal', str(ended['events']))
            self.assertIn('full', str(ended['events']))
            filler.unlink()
            self.await_paid(guest)
            self.assert_outcome(self.api.show(ended['id']), guest, here, Status.FAILED)

    def test_the_sources_journal(self):
        """Given a source that cannot remember any more in mid-copy, the migration completes, and what is left to do there is done when
        there is room."""
        guest, here, there = self.standing()
        with self.small(here, str(self.lab.host(here).state), 2) as state:
            with self.copying(guest, there, bandwidth_mib=16) as migration:
                filler = self.fill(state)
                ended = self.cloud.ended(migration)
            self.assertEqual((Status.COMPLETED, there), (ended['status'], self.api.instance_show(guest.uuid)['host']), ended)
            self.assert_owed(guest, here)
            self.assertIn('cannot be written', str(ended['events']))
            filler.unlink()
            self.await_paid(guest)
            self.assert_outcome(self.api.show(ended['id']), guest, there)


if FULL:
    TestFullDisksOnPostgreSQL = on_postgresql(TestFullDisks)
