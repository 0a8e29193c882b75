"""Which connection of libvirtd belongs to a migration that hangs, with `ss` replaced by a table of connections."""
import fixtures
import testtools

from migrator import exceptions
from migrator.compute.drivers.libvirt import links

BETA, PORT = '10.0.0.2', 16509


def line(port, remote=f'{BETA}:{PORT}', program='libvirtd', inode=None):
    """One line of ss's output."""
    return (f'0      0      10.0.0.1:{port} {remote} users:(("{program}",pid=7,fd=25)) timer:(keepalive,118min,0) '
            f'ino:{inode or port} sk:1001 <->')


class LinksTest(testtools.TestCase):
    """Given the connections before the call, while it copied and now: is one cut, and which."""

    def setUp(self):
        super().setUp()
        self.table, self.killed, self.may_kill, self.refused = [], [], True, None
        self.useFixture(fixtures.MonkeyPatch('migrator.programs.run', self.run_ss))
        self.useFixture(fixtures.MonkeyPatch('migrator.concurrency.native_addresses', self.resolve))

    @staticmethod
    def resolve(name):
        """What the system says of a name."""
        if name not in (BETA, 'beta.lab'):
            raise OSError(f'{name}: Name or service not known')
        return {BETA}

    def run_ss(self, command, timeout):
        """What ss does with the table."""
        self.assertEqual('ss', command[0])
        if self.refused:
            raise exceptions.DriverError(self.refused)
        if '-K' not in command:
            self.assertEqual(f':{PORT}', command[-1])
            return ''.join(f'{text}\n' for text in self.table)
        local, remote = command[command.index('src') + 1], command[command.index('dst') + 1]
        self.killed.append((local, remote))
        if self.may_kill:
            self.table = [text for text in self.table if text.split()[2:4] != [local, remote]]
        return ''

    def given_call(self, before=(), copying=(), now=None):
        """A call of libvirt around which these connections were open."""
        self.table = [line(port) for port in before]
        found = links.Links(f'qemu+tcp://{BETA}/system')
        self.assertTrue(found.wanted)
        self.table = [line(port) for port in copying]
        found.look()
        self.assertFalse(found.wanted)
        self.table = [line(port) for port in (copying if now is None else now)]
        return found

    def test_the_only_one_that_was_opened_since_is_cut(self):
        self.assertTrue(self.given_call(before=[1], copying=[1, 2]).cut())
        self.assertEqual([('10.0.0.1:2', f'{BETA}:{PORT}')], self.killed)
        self.assertEqual([line(1)], self.table)

    def test_one_that_was_opened_later_is_not_taken_for_it(self):
        self.assertTrue(self.given_call(copying=[2], now=[2, 3]).cut())
        self.assertEqual([line(3)], self.table)

    def test_of_two_none_is_cut_until_the_other_one_has_ended(self):
        found = self.given_call(copying=[2, 3])
        self.assertFalse(found.cut())
        self.assertEqual([], self.killed)
        self.table = [line(3), line(4)]
        self.assertTrue(found.cut())
        self.assertEqual([line(4)], self.table)

    def test_a_later_one_from_the_same_port_is_another_one(self):
        found = self.given_call(copying=[2])
        self.table = [line(2, inode=77)]
        self.assertFalse(found.cut())
        self.assertEqual([], self.killed)

    def test_nothing_is_cut_before_it_was_seen_copying(self):
        self.table = []
        found = links.Links(f'qemu+tcp://{BETA}/system')
        self.table = [line(2)]
        self.assertFalse(found.cut())
        self.assertEqual([], self.killed)

    def test_a_system_that_does_not_let_us_is_told(self):
        found = self.given_call(copying=[2])
        self.may_kill = False
        self.assertFalse(found.cut())
        self.refused = 'ss cannot be run: no such file'
        self.assertFalse(found.cut())

    def test_without_ss_there_is_nothing_to_look_for(self):
        self.refused = 'ss cannot be run: no such file'
        found = links.Links(f'qemu+tcp://{BETA}/system')
        self.assertFalse(found.wanted)
        self.refused = None
        self.assertFalse(found.cut())

    def test_other_programs_and_other_hosts_are_not_looked_at(self):
        said = '\n'.join((line(1, program='virsh'), line(2, remote='10.0.0.3:16509'), line(3), line(4, program='virtqemud')))
        self.assertEqual({'10.0.0.1:3', '10.0.0.1:4'}, {link.local for link in links.parse(said, {BETA})})

    def test_addresses_of_both_kinds(self):
        remotes = {'[fd00::2]:16509', f'[::ffff:{BETA}]:16509', '[fe80::1]%eth0:16509'}
        said = '\n'.join(line(number, remote=remote) for number, remote in enumerate(remotes))
        self.assertEqual(remotes, {link.remote for link in links.parse(said, {'fd00::2', BETA, 'fe80::1'})})

    def test_of_which_uris_libvirtd_has_a_connection_of_its_own(self):
        for uri, expected in ((f'qemu+tcp://{BETA}/system', True), ('qemu+tcp://beta.lab/system', True),
                              (f'qemu+ssh://{BETA}/system', False), ('qemu:///system', False), ('qemu+tcp://nowhere/system', False),
                              ('qemu+tcp://beta.lab:x/system', False)):
            self.assertEqual(expected, links.Links(uri).wanted, uri)

    def test_the_port_of_a_uri_and_of_its_transport(self):
        for uri, expected in (('qemu+tcp://beta.lab:7000/system', 7000), ('qemu+tls://beta.lab/system', 16514),
                              ('qemu://beta.lab/system', 16514)):
            with fixtures.MonkeyPatch('migrator.programs.run', lambda command, _seconds: self.killed.append(command[-1]) or ''):
                links.Links(uri)
            self.assertEqual(f':{expected}', self.killed[-1])
