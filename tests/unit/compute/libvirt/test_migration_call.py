"""What libvirt is asked for: flags and parameters of its call by plan and guest."""
import dataclasses

import libvirt
import testtools

from migrator.compute.drivers.libvirt import migration
from migrator.rpc import facts

UUID = '11111111-2222-4333-8444-555555555555'
LIVE = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PEER2PEER
PERMANENT = libvirt.VIR_MIGRATE_UNDEFINE_SOURCE | libvirt.VIR_MIGRATE_PERSIST_DEST | libvirt.VIR_MIGRATE_ABORT_ON_ERROR


def domain(*disks, graphics=''):
    """XML of a guest; a disk is (type, target, cache)."""
    text = ''.join(f"<disk type='{kind}'><driver type='qcow2' {f'cache={cache!r}' if cache else ''}/>"
                   + ("<source file='/i/d'/>" if kind == 'file' else "<source protocol='nbd' name='e'/>")
                   + f"<target dev='{target}'/></disk>" for kind, target, cache in disks)
    return f'<domain><devices>{text}{graphics}</devices></domain>'


def plan(copy=(), shared=(), **changes):
    """A plan with file disks that are copied or shared."""
    disks = tuple(facts.Disk(target=t, directory='/i', path=f'/i/{t}') for t in (*copy, *shared))
    return facts.Plan(**{'migration_id': UUID, 'instance_uuid': UUID, 'source_host': 'a', 'destination_host': 'b', 'disks': disks,
                         'copy': tuple(copy), 'migration_host': '10.0.0.2', **changes})


def flags(plan_, xml):
    """Flags of the call."""
    return migration.call(plan_, xml, xml)[1]


class FlagsTest(testtools.TestCase):
    """Which flags, and above all which not."""

    def test_a_guest_without_local_disks_is_never_copied(self):
        got = flags(plan(), domain(('network', 'vda', 'none')))
        self.assertEqual(LIVE | PERMANENT, got)

    def test_local_disks_are_copied_by_name_and_volumes_are_not(self):
        parameters, got = migration.call(plan(copy=['vda', 'vdc']), *[domain(('file', 'vda', ''), ('network', 'vdb', 'none'))] * 2)
        self.assertEqual(libvirt.VIR_MIGRATE_NON_SHARED_DISK, got & ~(LIVE | PERMANENT))
        self.assertEqual(['vda', 'vdc'], parameters[libvirt.VIR_MIGRATE_PARAM_MIGRATE_DISKS])

    def test_only_what_is_above_a_backing_file_is_copied(self):
        backed = plan(copy=['vda'])
        backed = dataclasses.replace(backed, disks=(dataclasses.replace(backed.disks[0], backing='/i/base'),))
        self.assertEqual(libvirt.VIR_MIGRATE_NON_SHARED_INC, flags(backed, domain(('file', 'vda', ''))) & ~(LIVE | PERMANENT))

    def test_libvirts_check_is_waived_only_for_proven_shared_disks_with_a_safe_cache(self):
        for disks, expected in (
                ([('file', 'vda', 'none')], True), ([('file', 'vda', 'directsync')], True),
                ([('file', 'vda', '')], False), ([('file', 'vda', 'writeback')], False),
                ([('file', 'vda', 'none'), ('network', 'vdb', 'writeback')], False),
                ([('file', 'vda', 'none'), ('file', 'vdz', 'none')], False)):
            got = bool(flags(plan(shared=['vda']), domain(*disks)) & libvirt.VIR_MIGRATE_UNSAFE)
            self.assertEqual(expected, got, disks)

    def test_a_copied_disk_needs_no_waiver(self):
        self.assertFalse(flags(plan(copy=['vda']), domain(('file', 'vda', 'none'))) & libvirt.VIR_MIGRATE_UNSAFE)


class ParametersTest(testtools.TestCase):
    """Addresses, bandwidth and both XMLs."""

    def test_addresses(self):
        for address, uri in (('10.0.0.2', 'tcp://10.0.0.2'), ('fd00::2', 'tcp://[fd00::2]'), ('beta.lab', 'tcp://beta.lab')):
            parameters, _ = migration.call(plan(migration_host=address), domain(), domain())
            self.assertEqual(uri, parameters[libvirt.VIR_MIGRATE_PARAM_URI])

    def test_bandwidth_only_when_limited(self):
        self.assertNotIn(libvirt.VIR_MIGRATE_PARAM_BANDWIDTH, migration.call(plan(), domain(), domain())[0])
        self.assertEqual(8, migration.call(plan(bandwidth_mib=8), domain(), domain())[0][libvirt.VIR_MIGRATE_PARAM_BANDWIDTH])

    def test_both_the_running_and_the_permanent_guest_listen_at_the_destination(self):
        graphics = "<graphics type='vnc' listen='10.0.0.1'/>"
        parameters, _ = migration.call(plan(listen_address='10.0.0.2'), domain(graphics=graphics), domain(graphics=graphics))
        for name in (libvirt.VIR_MIGRATE_PARAM_DEST_XML, libvirt.VIR_MIGRATE_PARAM_PERSIST_XML):
            self.assertIn('listen="10.0.0.2"', parameters[name])
