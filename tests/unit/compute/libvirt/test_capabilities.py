"""What a host offers, read from libvirt's capabilities."""
import testtools

from migrator import exceptions
from migrator.compute.drivers.libvirt import capabilities

XML = """<capabilities><host><cpu><arch>x86_64</arch><model>EPYC</model></cpu></host>
<guest><os_type>hvm</os_type><arch name='i686'><emulator>/q32</emulator><machine>pc</machine><domain type='qemu'/></arch></guest>
<guest><os_type>hvm</os_type><arch name='x86_64'><emulator>/q64</emulator>
<machine canonical='pc-q35-7.2' maxCpus='288'>q35</machine><machine>pc-q35-6.0</machine>
<domain type='qemu'/><domain type='kvm'><machine>only-kvm</machine></domain></arch></guest></capabilities>"""
DOMAIN = """<domainCapabilities><cpu><mode name='host-model' supported='yes'><model fallback='forbid'>EPYC-Milan</model></mode>
<mode name='custom' supported='yes'><model usable='yes'>qemu64</model><model usable='no'>Skylake</model>
<model usable='unknown'>odd</model></mode></cpu></domainCapabilities>"""


class CapabilitiesTest(testtools.TestCase):
    """Reading and choosing."""

    def setUp(self):
        super().setUp()
        self.found = capabilities.read(XML)

    def test_reads_the_hosts_own_architecture(self):
        machines = ('only-kvm', 'pc-q35-6.0', 'pc-q35-7.2', 'q35')
        self.assertEqual(capabilities.Capabilities('x86_64', 'EPYC', '/q64', machines, ('kvm', 'qemu')), self.found)

    def test_a_host_without_an_emulator_for_itself_is_an_error_in_words(self):
        self.assertRaises(exceptions.DriverError, capabilities.read, XML.replace("name='x86_64'", "name='arm'"))

    def test_models_that_cannot_be_given_are_left_out(self):
        self.assertEqual(('EPYC-Milan', 'odd', 'qemu64'), capabilities.cpu_models(DOMAIN))

    def test_kvm_is_chosen_only_where_it_is_offered_and_usable(self):
        self.assertEqual('kvm', capabilities.platform(self.found, 'auto', '', lambda: True).domain_type)
        self.assertEqual('qemu', capabilities.platform(self.found, 'auto', '', lambda: False).domain_type)

    def test_permissions_are_not_looked_at_when_the_type_is_configured(self):
        chosen = capabilities.platform(self.found, 'qemu', '', lambda: self.fail('asked for KVM'))
        self.assertEqual(('qemu', 'qemu64', 'q35', '/q64'), (chosen.domain_type, chosen.cpu_model, chosen.machine, chosen.emulator))

    def test_the_configured_model_wins(self):
        self.assertEqual('Haswell', capabilities.platform(self.found, 'kvm', 'Haswell', lambda: True).cpu_model)
        self.assertEqual('', capabilities.platform(self.found, 'kvm', '', lambda: True).cpu_model)

    def test_a_type_that_is_not_offered_is_an_error_in_words(self):
        found = capabilities.read(XML.replace("<domain type='kvm'><machine>only-kvm</machine></domain>", ''))
        self.assertRaises(exceptions.DriverError, capabilities.platform, found, 'kvm', '', lambda: True)
