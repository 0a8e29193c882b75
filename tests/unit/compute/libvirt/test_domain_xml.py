"""Domain XML: what is built can be read, what is rewritten differs only where a host decides."""
import dataclasses

import testtools
from lxml import etree

from migrator import exceptions
from migrator.compute.drivers.libvirt import domain_xml
from migrator.rpc import facts

UUID = '11111111-2222-4333-8444-555555555555'
PLATFORM = domain_xml.Platform('qemu', '/usr/bin/qemu-system-x86_64', 'x86_64', 'q35', 'qemu64')

FOUND = f"""
<domain type='kvm' id='3' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>found</name>
  <uuid>{UUID}</uuid>
  <metadata><nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'><nova:name>x</nova:name></nova:instance></metadata>
  <memory unit='KiB'>2097152</memory>
  <vcpu placement='static' current='2' cpuset='0-3'>4</vcpu>
  <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type><kernel>/boot/k</kernel><initrd>/boot/i</initrd></os>
  <cpu mode='custom' match='exact'><model fallback='forbid'>EPYC</model></cpu>
  <devices>
    <disk type='file' device='disk'><driver name='qemu' type='qcow2' cache='writeback'/><source file='/srv/a.qcow2'/>
      <target dev='vda' bus='virtio'/><serial>one</serial><address type='pci' domain='0x0000' bus='0x04' slot='0x00' function='0x0'/></disk>
    <disk type='network' device='disk'><driver name='qemu' type='raw' cache='none'/>
      <source protocol='nbd' name='lun'><host name='fd00::1' port='10809'/></source><target dev='vdb' bus='virtio'/><shareable/></disk>
    <disk type='block' device='disk'><driver name='qemu' type='raw'/><source dev='/dev/sdb'/><target dev='vdc' bus='virtio'/>
      <mirror type='file' job='copy'/></disk>
    <disk type='file' device='cdrom'><target dev='sda' bus='sata'/><readonly/></disk>
    <interface type='hostdev'><mac address='52:54:00:00:00:01'/></interface>
    <serial type='tcp'><source mode='bind' host='10.0.0.1' service='4555'/><target port='0'/></serial>
    <serial type='tcp'><source mode='connect' host='10.0.0.9' service='4556'/><target port='1'/></serial>
    <console type='tcp'><source mode='bind' host='10.0.0.1' service='4555'/></console>
    <graphics type='vnc' port='5900' listen='10.0.0.1'><listen type='address' address='10.0.0.1'/></graphics>
    <graphics type='spice'><listen type='none'/></graphics>
    <hostdev mode='subsystem' type='pci'><source><address bus='1'/></source></hostdev>
  </devices>
  <qemu:commandline><qemu:arg value='-foo'/></qemu:commandline>
</domain>"""


def spec(**changes):
    """An InstanceSpec with one file disk and one volume."""
    disks = (facts.NewDisk(target='vda', size=1 << 20), facts.NewDisk(target='vdb', uri='nbd://10.0.0.1:10810/lun/1', serial='vol-1'))
    return dataclasses.replace(facts.InstanceSpec(uuid=UUID, name='web', memory_mib=256, vcpus=2, disks=disks), **changes)


def built(instance=None, platform=PLATFORM):
    """The XML of a new guest."""
    instance = instance or spec()
    disks = [(d, '' if d.uri else f'/i/{d.target}') for d in instance.disks]
    return domain_xml.build(instance, instance.name, platform, disks, '/i/console.log')


class DescribeTest(testtools.TestCase):
    """Reading what libvirt says."""

    def test_reads_a_found_guest(self):
        told = domain_xml.describe(FOUND)
        self.assertEqual((UUID, 'found', 'kvm', 2048, 2, 'x86_64', 'pc-q35-7.2', 'custom', 'EPYC', False, ('/boot/k', '/boot/i')),
                         (told.uuid, told.name, told.domain_type, told.memory_mib, told.vcpus, told.arch, told.machine, told.cpu_mode,
                          told.cpu_model, told.managed, told.boot_files))

    def test_reads_every_disk(self):
        file, network, block, empty = domain_xml.describe(FOUND).disks
        self.assertEqual(('vda', 'file', '/srv/a.qcow2', 'qcow2', 'writeback', 'one'),
                         (file.target, file.type, file.path, file.format, file.cache, file.serial))
        self.assertEqual(('nbd://[fd00::1]:10809/lun', True), (network.path, network.shareable))
        self.assertEqual(('/dev/sdb', True, ''), (block.path, block.mirrored, block.cache))
        self.assertEqual(('', True, 'cdrom'), (empty.path, empty.readonly, empty.device))

    def test_names_what_ties_a_guest_to_its_host(self):
        self.assertEqual(2, len(domain_xml.describe(FOUND).passthrough))
        self.assertEqual((), domain_xml.describe(built()).passthrough)

    def test_units_of_memory(self):
        for unit, number, mib in (('KiB', 2048, 2), ('MiB', 3, 3), ('GiB', 1, 1024), ('bytes', 1 << 20, 1), ('MB', 1048576, 1000 ** 2)):
            xml = f"<domain><memory unit='{unit}'>{number}</memory></domain>"
            self.assertEqual(mib, domain_xml.describe(xml).memory_mib, unit)

    def test_text_that_is_no_xml_is_an_error_in_words(self):
        self.assertRaises(exceptions.DriverError, domain_xml.describe, 'libvirt')

    def test_entities_are_not_resolved(self):
        xml = '<!DOCTYPE d [<!ENTITY e SYSTEM "file:///etc/hostname">]><domain><name>&e;</name></domain>'
        self.assertEqual('', domain_xml.describe(xml).name)

    def test_becomes_the_wires_disk(self):
        kinds = [domain_xml.to_fact(d, 7, '/srv', '/srv/base', 'raw') for d in domain_xml.describe(FOUND).disks]
        self.assertEqual(['file', 'network', 'block', 'file'], [d.kind for d in kinds])
        self.assertEqual(facts.Disk(target='vda', format='qcow2', size=7, directory='/srv', path='/srv/a.qcow2', backing='/srv/base',
                                    backing_format='raw', cache='writeback', serial='one'), kinds[0])


class BuildTest(testtools.TestCase):
    """Writing a new guest."""

    def test_what_is_built_reads_back(self):
        told = domain_xml.describe(built(spec(kernel='/boot/k', initrd='/boot/i', cmdline='console=ttyS0 a="b" <c>')))
        self.assertEqual((UUID, 'web', 'qemu', 256, 2, True, 'qemu64', ('/boot/k', '/boot/i')),
                         (told.uuid, told.name, told.domain_type, told.memory_mib, told.vcpus, told.managed, told.cpu_model,
                          told.boot_files))
        self.assertEqual([('/i/vda', 'qcow2', 'none', ''), ('nbd://10.0.0.1:10810/lun/1', 'raw', 'none', 'vol-1')],
                         [(d.path, d.format, d.cache, d.serial) for d in told.disks])

    def test_boots_from_the_first_disk_without_a_kernel(self):
        root = etree.fromstring(built())
        self.assertEqual('hd', root.find('os/boot').get('dev'))
        self.assertIsNone(root.find('os/kernel'))
        self.assertIsNone(etree.fromstring(built(spec(kernel='/boot/k'))).find('os/boot'))

    def test_has_a_console_file_that_is_appended_to_and_no_network(self):
        root = etree.fromstring(built())
        source = root.find('devices/serial[@type="file"]/source')
        self.assertEqual(('/i/console.log', 'on'), (source.get('path'), source.get('append')))
        self.assertIsNone(root.find('devices/interface'))

    def test_has_the_hosts_model_where_no_model_is_given(self):
        root = etree.fromstring(built(platform=dataclasses.replace(PLATFORM, domain_type='kvm', cpu_model='')))
        self.assertEqual('host-model', root.find('cpu').get('mode'))

    def test_volumes_stop_the_guest_on_an_error_and_files_do_not(self):
        drivers = [d.attrib for d in domain_xml.parse(built()).findall('devices/disk/driver')]
        self.assertEqual([None, 'stop'], [d.get('error_policy') for d in drivers])
        self.assertEqual([None, 'stop'], [d.get('rerror_policy') for d in drivers])

    def test_has_ports_for_its_devices_and_for_volumes_to_come(self):
        ports = domain_xml.parse(built()).findall('devices/controller[@model="pcie-root-port"]')
        self.assertEqual(2 + 1 + domain_xml.SPARE_PORTS, len(ports))

    def test_a_volume_that_is_attached_reads_back(self):
        for uri, read_only in (('nbd://10.0.0.1:10810/lun', False), ('nbds://[fd00::1]/lun', True)):
            xml = f'<domain><devices>{domain_xml.volume("vdc", uri, "vol-2", read_only)}</devices></domain>'
            (told,) = domain_xml.describe(xml).disks
            self.assertEqual(('vdc', 'network', domain_xml.export_uri(uri), 'vol-2', 'none', read_only),
                             (told.target, told.type, told.path, told.serial, told.cache, told.readonly))

    def test_exports_are_compared_with_their_ports(self):
        self.assertEqual('nbd://array:10809/lun', domain_xml.export_uri('nbd://Array/lun'))
        self.assertEqual('nbds://[fd00::1]:1/lun', domain_xml.export_uri('nbds://[fd00::1]:1/lun'))

    def test_gives_one_disk_as_it_stands(self):
        xml = domain_xml.disk(FOUND, 'vda')
        self.assertIn('/srv/a.qcow2', xml)
        self.assertIn('bus="0x04"', xml)
        self.assertEqual('', domain_xml.disk(FOUND, 'vdz'))

    def test_refuses_what_is_no_export(self):
        for uri in ('http://a/b', 'nbd://', 'nbd://host', 'nbd://host/', 'nbd://host:x/e', 'nbd://host:99999/e', 'nbd+unix:///e?socket=/s',
                    'nbd://u@host/e', 'nbd://host/e?x'):
            self.assertRaises(exceptions.InvalidRequest, domain_xml.nbd_export, uri)

    def test_reads_an_export(self):
        self.assertEqual(('fd00::1', 10809, 'a/b'), domain_xml.nbd_export('nbd://[fd00::1]/a/b'))

    def test_refuses_characters_that_xml_cannot_carry(self):
        self.assertRaises(exceptions.InvalidRequest, built, spec(kernel='/boot/k', cmdline='a\x00b'))


class RewriteTest(testtools.TestCase):
    """Making a dump fit for another host."""

    def setUp(self):
        super().setUp()
        self.after = etree.fromstring(domain_xml.for_destination(FOUND, '10.0.0.2'))

    def test_what_listens_is_bound_to_the_destinations_address(self):
        graphics = self.after.find('devices/graphics[@type="vnc"]')
        self.assertEqual(('10.0.0.2', '10.0.0.2', '5900'),
                         (graphics.get('listen'), graphics.find('listen').get('address'), graphics.get('port')))
        self.assertEqual('10.0.0.2', self.after.find('devices/serial/source[@mode="bind"]').get('host'))
        self.assertEqual('10.0.0.2', self.after.find('devices/console/source').get('host'))

    def test_a_console_that_connects_elsewhere_goes_on_doing_so(self):
        self.assertEqual('10.0.0.9', self.after.find('devices/serial/source[@mode="connect"]').get('host'))

    def test_nothing_else_differs(self):
        back = etree.fromstring(domain_xml.for_destination(etree.tostring(self.after, encoding='unicode'), '10.0.0.1'))
        self.assertEqual(self.canonical(domain_xml.parse(FOUND)), self.canonical(back))

    def test_no_address_changes_nothing(self):
        self.assertEqual(self.canonical(domain_xml.parse(FOUND)), self.canonical(etree.fromstring(domain_xml.for_destination(FOUND, ''))))

    @staticmethod
    def canonical(root):
        """Text that is the same for the same XML, namespaces and their prefixes included."""
        return etree.tostring(root, method='c14n')


class StatusTest(testtools.TestCase):
    """libvirtd's own notes of active guests."""

    def test_a_note_names_the_guest_its_number_and_its_process(self):
        note = (b"<!-- made by libvirt --><domstatus state='paused' reason='starting up' pid='0'><job async='migration in'/>"
                b"<domain type='qemu' id='3'><name>web</name><uuid>u-1</uuid></domain></domstatus>")
        self.assertEqual(('u-1', 3, 0), domain_xml.status(note))

    def test_anything_else_is_no_note(self):
        for text in (b'', b'<domstatus', b"<domstatus pid='x'><domain id='1'/></domstatus>", b"<domain id='1'/>"):
            self.assertEqual(('', 0, -1), domain_xml.status(text), text)
