"""May this guest move there? Each reason against it, alone and in words, and what is copied."""
import dataclasses

import testscenarios

from migrator.conductor.compatible import compatible
from migrator.rpc.facts import DestinationFacts, Disk, SourceFacts
from migrator.states import GuestState, PauseReason
from tests import base

PRIVATE = Disk('vda', size=1 << 30, directory='/private', path='/private/u/vda.qcow2')
SHARED = Disk('vdb', size=1 << 30, directory='/shared', path='/shared/u/vdb.qcow2', cache='none')
VOLUME = Disk('vdc', kind='network', path='nbd://array/v1')
CDROM = Disk('sda', format='raw', path='/isos/x.iso', readonly=True)

SOURCE = SourceFacts(
    GuestState.RUNNING, hypervisor_type='QEMU', hypervisor_version=7002000, arch='x86_64', machine='pc-q35-7.2', domain_type='kvm',
    cpu_mode='custom', cpu_model='Haswell', memory_mib=1024, disks=(PRIVATE, SHARED, VOLUME, CDROM),
    storage={'/private': 'id-a', '/shared': 'id-s'})
DESTINATION = DestinationFacts(
    hypervisor_type='QEMU', hypervisor_version=7002000, arch='x86_64', machines=('pc-q35-7.2', 'q35'), domain_types=('kvm', 'qemu'),
    cpu_model='Skylake', cpu_models=('Haswell', 'Skylake'), memory_free_mib=2048, storage={'/private': 'id-b', '/shared': 'id-s'},
    storage_free={'/private': 2 << 30, '/shared': 0}, files_found=(SHARED.path,))


def disks(*changed):
    """Give the source with other disks."""
    return {'disks': changed}


def disk(original, **changes):
    """Give a disk that differs."""
    return dataclasses.replace(original, **changes)


class ReasonTest(testscenarios.WithScenarios, base.TestCase):
    """Each scenario changes one thing and expects exactly one reason."""

    scenarios = [(name, {'source': source, 'destination': destination, 'reason': reason}) for name, source, destination, reason in (
        ('off', {'state': GuestState.OFF}, {}, 'the guest is off at the source, not running'),
        ('absent', {'state': GuestState.ABSENT}, {}, 'the guest is absent at the source'),
        ('job', {'job_active': True}, {}, 'another job of the guest is active at the source'),
        ('obstacle', {'obstacles': ('it has a host device',)}, {}, 'it has a host device'),
        ('hypervisor', {}, {'hypervisor_type': 'Xen'}, 'the hypervisors differ: QEMU and Xen'),
        ('older', {}, {'hypervisor_version': 7001000}, 'hypervisor is older (7001000 < 7002000)'),
        ('arch', {}, {'arch': 'aarch64'}, 'the architectures differ: x86_64 and aarch64'),
        ('machine', {'machine': 'pc-q35-8.0'}, {}, 'does not offer the machine type pc-q35-8.0'),
        ('domain type', {'domain_type': 'hvf'}, {}, 'does not offer guests of type hvf'),
        ('occupied', {}, {'occupied': 'a guest of this uuid is off here'}, 'not free for the guest: a guest of this uuid is off here'),
        ('boot file', {}, {'boot_files_missing': ('/boot/vmlinuz',)}, 'boots from /boot/vmlinuz, which the destination does not have'),
        ('stalled', {'state': GuestState.PAUSED, 'reason': PauseReason.IO_ERROR}, {}, 'stands still after an I/O error of a disk'),
        ('volume', {}, {'volumes_silent': ('the export nbd://a/b does not answer: timed out',)}, 'the destination, the export nbd://a/b'),
        ('cpu model', {'cpu_model': 'EPYC'}, {}, 'cannot give the CPU model EPYC'),
        ('host cpu', {'cpu_mode': 'host-passthrough', 'cpu_model': 'Haswell'}, {}, 'has the CPU of its host (Haswell)'),
        ('maximum cpu', {'cpu_mode': 'maximum', 'cpu_model': 'Haswell'}, {}, 'has the CPU of its host (Haswell)'),
        ('memory', {'memory_mib': 2049}, {}, 'needs 2049 MiB of memory; the destination has 2048 MiB free'),
        ('space', disks(disk(PRIVATE, size=(2 << 30) + 1)), {}, 'the destination has 2147483648 bytes free there'),
        ('block device', disks(Disk('vda', kind='block', path='/dev/sdx')), {}, 'disk vda is a block device of the source host'),
        ('no directory', disks(disk(PRIVATE, directory='/else')), {}, 'lies in /else, which the destination does not have'),
        ('outside', disks(disk(PRIVATE, directory='', path='/root/x.img')), {}, 'lies in /root/x.img, which the destination does not have'),
        ('in the way', {}, {'files_found': (SHARED.path, PRIVATE.path)}, 'has a file /private/u/vda.qcow2 already'),
        ('shareable', disks(disk(PRIVATE, shareable=True)), {}, 'disk vda is shared between guests and not reachable'),
        ('backing', disks(disk(PRIVATE, backing='/private/base.img')), {}, 'the backing file /private/base.img of disk vda is not at'),
        ('shared file unseen', {}, {'files_found': ()}, 'disk vdb is on shared storage, but the destination does not see'),
        ('cache', disks(disk(SHARED, cache='writeback')), {}, 'on shared storage with cache mode writeback'),
        ('default cache', disks(disk(SHARED, cache='')), {}, 'on shared storage with cache mode default'))]

    def test_one_reason(self):
        found = compatible(dataclasses.replace(SOURCE, **self.source), dataclasses.replace(DESTINATION, **self.destination))
        self.assertEqual(1, len(found.reasons), found.reasons)
        self.assertIn(self.reason, found.reasons[0])
        self.assertFalse(found.possible)


class PossibleTest(base.TestCase):

    def possible(self, source=None, destination=None):
        found = compatible(dataclasses.replace(SOURCE, **(source or {})), dataclasses.replace(DESTINATION, **(destination or {})))
        self.assertEqual((), found.reasons)
        self.assertTrue(found.possible)
        return found

    def test_only_local_disks_are_copied(self):
        found = self.possible()
        self.assertEqual(('vda',), found.copy)
        self.assertEqual((PRIVATE, SHARED), found.disks)        # neither the volume nor the read-only disk is of any step's concern

    def test_shared_is_what_both_read_the_same_identity_in(self):
        storage = {'storage': {'/private': 'same', '/shared': 'id-s'}}
        found = self.possible({**storage, **disks(disk(PRIVATE, cache='none'), SHARED)},
                              {**storage, 'files_found': (PRIVATE.path, SHARED.path)})
        self.assertEqual((), found.copy)

    def test_no_identity_is_not_shared(self):
        found = self.possible({'storage': {}, **disks(PRIVATE)}, {'storage': {'/private': ''}, 'files_found': ()})
        self.assertEqual(('vda',), found.copy)

    def test_a_paused_guest_may_move(self):
        self.possible({'state': GuestState.PAUSED, 'reason': PauseReason.USER})

    def test_a_newer_hypervisor_is_welcome(self):
        self.possible(destination={'hypervisor_version': 8000000})

    def test_the_same_host_cpu_is_welcome(self):
        self.possible({'cpu_mode': 'host-passthrough', 'cpu_model': 'Skylake'})

    def test_exactly_enough_is_enough(self):
        self.possible({'memory_mib': 2048, **disks(disk(PRIVATE, size=2 << 30))})

    def test_a_backing_file_may_be_there_or_shared(self):
        self.possible(disks(disk(PRIVATE, backing='/private/base.img')), {'backing_found': ('/private/base.img',)})
        self.possible(disks(disk(PRIVATE, backing='/shared/base.img')))

    def test_a_backing_file_beside_the_shared_directory_is_not_shared(self):
        found = compatible(dataclasses.replace(SOURCE, **disks(disk(PRIVATE, backing='/shared-not/base.img'))), DESTINATION)
        self.assertFalse(found.possible)

    def test_directsync_is_safe_on_shared_storage(self):
        self.possible(disks(disk(SHARED, cache='directsync')))

    def test_reasons_add_up(self):
        found = compatible(dataclasses.replace(SOURCE, memory_mib=9999), dataclasses.replace(DESTINATION, arch='aarch64', occupied='x'))
        self.assertEqual(3, len(found.reasons))
