"""Live migrations that succeed: with every kind of storage, there and back, while the guest writes; through real daemons to real hosts."""
import hashlib
import subprocess

from tests.cloud import DISK, SMALL_DISK, Guest
from tests.cloud_case import CloudCase
from tests.lab import guest as lab_guest
from tests.lab.disk import check_fill

MIB = 1 << 20


class Storage(CloudCase):
    """What becomes of the disks of a guest that writes all the time."""

    def there_and_back(self, guest, times):
        """Move a guest from alpha to beta and back, `times` times; every time all is as it must be. Gives the migrations."""
        ended = []
        for _ in range(times):
            for there in ('beta', 'alpha'):
                ended.append(self.cloud.migrate(guest, there))
                self.assert_outcome(ended[-1], guest, there)
        return ended

    def test_local_disks_there_and_back_three_times(self):
        """Given a guest with its disk on its host, when it moves there and back three times, nothing that it wrote is ever missing."""
        guest = self.cloud.boot('alpha')
        for ended in self.there_and_back(guest, 3):
            self.assertGreaterEqual(ended['statistics']['disk_processed'], DISK, ended)
            self.assertGreater(ended['statistics']['memory_processed'], 10 * MIB)
            self.assertGreater(ended['statistics']['downtime_ms'], 0)
        ended = self.cloud.ended(self.api.instance_stop(guest.uuid, timeout=30))
        self.assertEqual('completed', ended['status'], ended)
        self.assertEqual([], self.cloud.settled(guest, 'alpha', 'stopped'))
        self.cloud.check_disk(guest, 'alpha')

    def test_shared_storage_there_and_back_three_times(self):
        """Given a guest with its disk on storage that both hosts share, which nobody configured as shared, no disk is copied."""
        guest = self.cloud.boot('alpha', disks=[{'target': 'vda', 'size': DISK, 'directory': str(self.lab.shared)}])
        verdict = self.api.live_migrate(guest.uuid, 'beta', options={'dry_run': True})
        self.assertEqual((True, [], []), (verdict['possible'], verdict['reasons'], verdict['copy']))
        for ended in self.there_and_back(guest, 3):
            self.assertEqual(0, ended['statistics'].get('disk_total', 0) + ended['statistics'].get('disk_processed', 0), ended)

    def test_a_volume_there_and_back_three_times(self):
        """Given a guest on an NBD volume, the volume stays where it is: nothing of it is copied, and the same bytes are on it."""
        uri = self.lab.export_nbd('volume', 64)
        guest = self.cloud.boot('alpha', disks=[{'target': 'vda', 'uri': uri, 'serial': 'volume'}], fill=2)
        guest.console.wait_for('filled 2')
        volume = self.lab.folder / 'volumes' / 'volume.raw'
        number = volume.stat().st_ino
        for ended in self.there_and_back(guest, 3):
            self.assertEqual(0, ended['statistics'].get('disk_total', 0) + ended['statistics'].get('disk_processed', 0), ended)
        self.assertEqual([('network', uri)], [(disk['kind'], disk['path']) for disk in self.api.instance_show(guest.uuid)['disks']])
        self.assertEqual(number, volume.stat().st_ino)
        check_fill(volume, 2, 'raw')

    def test_every_kind_of_disk_at_once(self):
        """Given a guest with a raw and a qcow2 disk on its host, one on shared storage and a volume, only the first two are copied."""
        uri = self.lab.export_nbd('other', 16)
        guest = self.cloud.boot('alpha', fill=4, disks=[
            {'target': 'vda', 'size': DISK, 'format': 'raw'}, {'target': 'vdb', 'size': 4 * MIB},
            {'target': 'vdc', 'size': 4 * MIB, 'directory': str(self.lab.shared)}, {'target': 'vdd', 'uri': uri}])
        guest.console.wait_for('filled 4')
        verdict = self.api.live_migrate(guest.uuid, 'beta', options={'dry_run': True})
        self.assertEqual((True, ['vda', 'vdb']), (verdict['possible'], verdict['copy']))
        for ended in self.there_and_back(guest, 1):
            self.assertEqual(DISK + 4 * MIB, ended['statistics']['disk_total'] if 'disk_total' in ended['statistics'] else DISK + 4 * MIB)
            self.assertLess(ended['statistics']['disk_processed'], 2 * DISK, ended)
        self.cloud.ended(self.api.instance_stop(guest.uuid, timeout=0))
        check_fill(guest.image(guest.disks[0]), 4, 'raw', self.lab.host('alpha'))

    def test_a_disk_with_a_backing_file(self):
        """Given a disk over an image that both hosts have, only what was written over it is copied, and the image stays as it is."""
        image = self.lab.instances / 'images' / 'base.qcow2'
        for host in self.cloud.hosts.values():
            self.make_image(host)
        before = self.digests()
        self.addCleanup(self.remove_images)
        guest = self.cloud.boot('alpha', disks=[{'target': 'vda', 'size': DISK, 'backing': str(image)}])
        for ended in self.there_and_back(guest, 1):
            self.assertLess(ended['statistics']['disk_processed'], DISK // 2, ended)
        disk = self.api.instance_show(guest.uuid)['disks'][0]
        self.assertEqual((str(image), 'qcow2', DISK), (disk['backing'], disk['backing_format'], disk['size']))
        self.assertEqual(before, self.digests())
        self.cloud.remove(guest)
        self.assertEqual(before, self.digests())
        self.remove_images()

    @staticmethod
    def make_image(host):
        """An image of 24 MiB in which 16 MiB from 8 MiB on are written."""
        folder = host.instances_outside / 'images'
        folder.mkdir(exist_ok=True)
        for argv in (['qemu-img', 'create', '-q', '-f', 'qcow2', folder / 'base.qcow2', '24M'],
                     ['qemu-io', '-f', 'qcow2', '-c', 'write -q -P 7 8M 16M', folder / 'base.qcow2']):
            subprocess.run(argv, check=True, capture_output=True, timeout=60)

    def digests(self):
        """What the images at both hosts hold."""
        paths = [host.instances_outside / 'images' / 'base.qcow2' for host in self.cloud.hosts.values()]
        return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]

    def remove_images(self):
        """Remove the images at both hosts; harmless when they are gone."""
        for host in self.lab.hosts.values():
            (host.instances_outside / 'images' / 'base.qcow2').unlink(missing_ok=True)
            if (host.instances_outside / 'images').exists():
                (host.instances_outside / 'images').rmdir()


class Looking(CloudCase):
    """What an operator sees."""

    def test_hosts_are_known_by_migrators_names_and_by_libvirts(self):
        """Given hosts whose libvirt has another name for them, both names are told, with what the host offers."""
        hosts = {host['name']: host for host in self.api.hosts()}
        self.assertEqual({'alpha': 'alpha.lab', 'beta': 'beta.lab'}, {name: host['hypervisor_name'] for name, host in hosts.items()})
        for host in hosts.values():
            self.assertEqual(('up', True, 'QEMU'), (host['state'], host['enabled'], host['hypervisor_type']))
            self.assertLess(7_000_000, host['hypervisor_version'])
            self.assertLess(0, host['memory_free_mib'])
            self.assertLessEqual(host['memory_free_mib'], host['memory_mib'])

    def test_progress_is_seen_while_it_runs(self):
        """Given a slow migration, its numbers appear and grow while it runs; afterwards the statistics tell what it took."""
        guest, here, there = self.standing()
        migration = self.api.live_migrate(guest.uuid, there, options={'bandwidth_mib': 20})
        seen = []

        def grown():
            seen.append(self.api.show(migration['id'])['progress'])
            moved = [job['memory_processed'] + job['disk_processed'] for job in seen if job.get('active')]
            return len(set(moved)) >= 3
        self.wait_for(grown, 'three different numbers')
        moved = [job['memory_processed'] + job['disk_processed'] for job in seen if job.get('active')]
        self.assertEqual(sorted(moved), moved)
        self.assertTrue(any(job.get('disk_total') == SMALL_DISK for job in seen), seen[-1])
        self.assertEqual(migration['id'], self.api.instance_show(guest.uuid)['locked_by'])
        ended = self.cloud.ended(migration)
        self.assert_outcome(ended, guest, there)
        self.assertGreater(ended['statistics']['elapsed_ms'], 1000, ended)

    def test_a_guest_that_libvirt_already_runs_is_found_and_moved(self):
        """Given a guest that was made with libvirt's own means, it stands in the catalogue without any doing, and moves as any other."""
        spec = self.cloud.spec(disks=[{'target': 'vda', 'size': DISK}])
        guest = Guest(self.lab, spec, managed=False)
        self.addCleanup(guest.close)
        alpha, beta = self.lab.host('alpha'), self.lab.host('beta')
        folder = alpha.instances_outside / guest.uuid
        folder.mkdir()
        image = guest.image(guest.disks[0])
        alpha.run(['qemu-img', 'create', '-q', '-f', 'qcow2', image, str(DISK)])
        xml = self.lab.folder / 'state' / f'{guest.uuid}.xml'
        xml.write_text(lab_guest.domain_xml(guest.uuid, guest.name, self.lab.instances / guest.uuid, self.lab.initrd, spec['cmdline'],
                                            disks=[('vda', 'qcow2', image)]))
        alpha.virsh('define', str(xml))
        alpha.virsh('start', guest.uuid)
        self.cloud.await_life(guest)
        self.wait_for(lambda: any(found['uuid'] == guest.uuid and found['state'] == 'running' for found in self.api.instances()),
                      'the guest in the catalogue')
        known = self.api.instance_show(guest.name)
        self.assertEqual(('alpha', False, spec['memory_mib']), (known['host'], known['managed'], known['memory_mib']))
        ended = self.cloud.migrate(guest, 'beta')
        self.assert_outcome(ended, guest, 'beta')
        beta.virsh('destroy', guest.uuid)
        beta.virsh('undefine', guest.uuid)
        for path in [*(beta.instances_outside / guest.uuid).iterdir()]:
            path.unlink()
        (beta.instances_outside / guest.uuid).rmdir()
        self.wait_for(lambda: self.api.instance_show(guest.uuid)['state'] == 'unknown', 'the catalogue knows that it is not listed')


class OnMariaDB(CloudCase):
    """The whole way, with the catalogue in MariaDB."""

    arguments = {'database': 'mysql'}

    def test_there_and_back(self):
        """Given a catalogue in this database, a writing guest moves there and back."""
        for _ in range(2):
            guest, _here, there = self.standing()
            self.assert_outcome(self.cloud.migrate(guest, there), guest, there)


class OnPostgreSQL(OnMariaDB):
    """The whole way, with the catalogue in PostgreSQL."""

    arguments = {'database': 'postgresql'}
