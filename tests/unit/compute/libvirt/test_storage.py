"""Storage directories, disk headers and markers, on directories of the test's own."""
import fcntl
import os
import pathlib
import struct
import tempfile
import threading
from unittest import mock

import fixtures
import testtools

from migrator import concurrency, exceptions
from migrator.compute.drivers.libvirt import disk_format, folders, markers, storage
from migrator.rpc import facts

UUID = '11111111-2222-4333-8444-555555555555'
MIGRATION = '99999999-2222-4333-8444-555555555555'


def qcow2(size, backing=b'', backing_format=b'', version=3):
    """The header of a qcow2 image by its specification, with the backing file's name at byte 400."""
    head = struct.pack('>4sIQIIQ', b'QFI\xfb', version, 400 if backing else 0, len(backing), 16, size).ljust(100, b'\0')
    if version >= 3:
        head += struct.pack('>I', 104)
    else:
        head = head[:72]
    if backing_format:
        head += struct.pack('>II', 0xE2792ACA, len(backing_format)) + backing_format.ljust(-(-len(backing_format) // 8) * 8, b'\0')
    return (head + struct.pack('>II', 0, 0)).ljust(400, b'\0') + backing


class Case(testtools.TestCase):
    """Two storage directories of one host, and a state directory."""

    def setUp(self):
        super().setUp()
        self.root = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.storage = storage.Storage(str(self.root / 'i'), [str(self.root / 'x')], str(self.root / 'state'), 'alpha')
        self.storage.start()
        self.folders = folders.Folders(self.storage)

    def put(self, path, content=b''):
        """Write a file below the root; returns its path as text."""
        path = self.root / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return str(path)

    def tree(self):
        """Everything below the root, with contents."""
        return {str(p.relative_to(self.root)): p.read_bytes() if p.is_file() else None for p in self.root.rglob('*')}

    def plan(self, copy=('vda',), path=None, **changes):
        """A plan that copies vda."""
        directory = str(self.root / 'i')
        disk = facts.Disk(target='vda', size=1 << 20, directory=directory, path=path or f'{directory}/{UUID}/vda.qcow2')
        return facts.Plan(**{'migration_id': MIGRATION, 'instance_uuid': UUID, 'source_host': 'alpha', 'destination_host': 'beta',
                             'disks': (disk,), 'copy': copy, **changes})


class HeaderTest(Case):
    """Reading images."""

    def test_qcow2_of_both_versions(self):
        for version in (2, 3):
            path = self.put('i/d', qcow2(7 << 20, b'base.raw', b'raw', version))
            self.assertEqual(disk_format.Image('qcow2', 7 << 20, str(self.root / 'i/base.raw'), 'raw'), disk_format.read(path))

    def test_anything_else_is_raw_with_the_size_of_the_file(self):
        self.assertEqual(disk_format.Image('raw', 1000), disk_format.read(self.put('i/d', b'x' * 1000)))

    def test_a_raw_disk_is_not_interpreted_whatever_a_guest_wrote_there(self):
        self.assertEqual('', disk_format.read(self.put('i/d', qcow2(1, b'/etc/shadow')), 'raw').backing)

    def test_a_backing_file_that_is_no_path_stays_as_it_is(self):
        self.assertEqual('nbd://h/e', disk_format.read(self.put('i/d', qcow2(1, b'nbd://h/e'))).backing)

    def test_damaged_and_missing_images_are_errors_in_words(self):
        for content in (b'QFI\xfb', struct.pack('>4sIQIIQ', b'QFI\xfb', 3, 400, 5000, 16, 1).ljust(600, b'\0')):
            self.assertRaises(exceptions.DriverError, disk_format.read, self.put('i/d', content))
        self.assertRaises(exceptions.DriverError, disk_format.read, str(self.root / 'nothing'))


class IdentityTest(Case):
    """The permanent identity of a directory."""

    def test_stays_for_ever(self):
        before = self.storage.identities()
        self.storage.start()
        self.assertEqual(before, self.storage.identities())
        self.assertEqual(2, len(set(before.values())))

    def test_many_hosts_at_once_agree(self):
        directory = str(self.root / 'shared')
        found = []
        threads = [threading.Thread(target=lambda: found.append(markers.make_identity(directory))) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual((16, 1), (len(found), len(set(found))))
        self.assertEqual([markers.IDENTITY], os.listdir(directory))

    def test_a_directory_that_went_away_is_not_named(self):
        os.unlink(self.root / 'x' / markers.IDENTITY)
        self.assertEqual([str(self.root / 'i')], list(self.storage.identities()))
        self.assertEqual([str(self.root / 'i')], list(self.storage.free()))


class PathTest(Case):
    """Nothing outside of the configured directories."""

    def test_directory_of(self):
        self.assertEqual(str(self.root / 'x'), self.storage.directory_of(str(self.root / 'x/a/b')))
        for outside in ('/etc/passwd', str(self.root / 'i'), str(self.root / 'i/../state/x'), str(self.root / 'ix/a')):
            self.assertEqual('', self.storage.directory_of(outside), outside)

    def test_symbolic_links_are_followed_first(self):
        os.symlink('/etc', self.root / 'i' / 'link')
        self.assertEqual('', self.storage.directory_of(str(self.root / 'i/link/passwd')))

    def test_the_deepest_directory_wins(self):
        nested = storage.Storage(str(self.root / 'i'), [str(self.root / 'i/deep')], str(self.root / 'state'), 'alpha')
        self.assertEqual(str(self.root / 'i/deep'), nested.directory_of(str(self.root / 'i/deep/d')))

    def test_a_relative_directory_is_refused(self):
        self.assertRaises(exceptions.DriverError, storage.Storage, 'instances', [], '/state', 'alpha')

    def test_a_guests_directory_needs_a_uuid(self):
        for text in ('../../etc', '', UUID + '/..', UUID.upper() + 'x'):
            self.assertRaises(exceptions.InvalidRequest, self.storage.guest_directory, '/i', text)

    def test_a_chain_of_backing_files_must_not_leave_the_directories(self):
        good = self.put('i/good', qcow2(1, self.put('x/base', b'0' * 512).encode()))
        self.assertEqual('', self.storage.chain_problem(good))
        for backing in (b'/etc/passwd', b'nbd://h/e', b'missing'):
            self.assertTrue(self.storage.chain_problem(self.put('i/bad', qcow2(1, backing))), backing)

    def test_a_chain_that_goes_in_circles_ends(self):
        self.put('i/one', qcow2(1, b'two'))
        self.assertTrue(self.storage.chain_problem(self.put('i/two', qcow2(1, b'one'))))

    def test_disks_that_cannot_be_made_are_refused(self):
        path = str(self.root / 'i/d')
        for form, size, backing, error in (('vmdk', 1, '', exceptions.InvalidRequest), ('qcow2', 0, '', exceptions.InvalidRequest),
                                           ('qcow2', -1, '', exceptions.InvalidRequest), ('raw', 1, path, exceptions.InvalidRequest),
                                           ('qcow2', 1, '/etc/passwd', exceptions.DriverError)):
            self.assertRaises(error, self.storage.check_new_disk, path, form, size, backing)
        self.assertRaises(exceptions.InvalidRequest, self.storage.check_new_disk, '/etc/passwd', 'qcow2', 1, '')

    def test_the_disk_of_another_guest_backs_none(self):
        """Given a disk in a guest's directory, then no other disk may stand on it, for it goes with its guest."""
        disk = self.put(f'i/{UUID}/vda.qcow2', qcow2(1))
        self.assertEqual('', self.storage.chain_problem(disk))
        self.put(f'i/{UUID}/{markers.CREATED}', b'alpha')
        self.assertIn('another guest', self.storage.chain_problem(disk))


class InUseTest(Case):
    """Files that a process has open."""

    def test_an_open_file_is_found_by_its_inode(self):
        path = self.put('i/d', b'x')
        os.link(path, self.root / 'other-name')
        with open(self.root / 'other-name', 'rb'):
            error = self.assertRaises(exceptions.PreconditionFailed, self.storage.check_unused, [path])
        self.assertIn(str(os.getpid()), str(error))
        self.storage.check_unused([path])

    def test_a_disk_that_an_emulator_elsewhere_has_locked_is_in_use(self):
        """Given a lock as QEMU takes it, held by a process that cannot be seen, the disk is not free; without it, it is."""
        path = self.put('i/d', b'x' * 512)
        with open(path, 'rb+') as stream, mock.patch.object(storage, '_opener', return_value=None):
            fcntl.fcntl(stream, fcntl.F_OFD_SETLK if hasattr(fcntl, 'F_OFD_SETLK') else 37,
                        struct.pack('hhqqi4x', fcntl.F_RDLCK, os.SEEK_SET, 101, 1, 0))
            error = self.assertRaises(exceptions.PreconditionFailed, self.storage.check_unused, [path])
            self.assertIn('does not run on alpha', str(error))
        self.storage.check_unused([path])

    def test_files_that_are_not_there_are_unused(self):
        self.storage.check_unused([str(self.root / 'nothing')])


class CreationTest(Case):
    """A guest's directories for a creation."""

    def test_twice(self):
        self.assertEqual([str(self.root / 'i' / UUID)], self.folders.claim_for_creation(UUID, self.storage.directories[:1]))
        before = self.tree()
        self.assertEqual([], self.folders.claim_for_creation(UUID, self.storage.directories[:1]))
        self.assertEqual(before, self.tree())

    def test_a_foreign_directory_stops_it_and_nothing_stays(self):
        self.put(f'x/{UUID}/vda.qcow2', b'precious')
        before = self.tree()
        self.assertRaises(exceptions.DestinationNotEmpty, self.folders.claim_for_creation, UUID, self.storage.directories)
        self.assertEqual(before, self.tree())

    def test_what_a_crash_left_half_made_is_used_up(self):
        os.mkdir(self.root / 'i' / f'.migrator-new-{UUID}-alpha')
        self.folders.claim_for_creation(UUID, self.storage.directories[:1])
        self.assertEqual({markers.IDENTITY, UUID}, set(os.listdir(self.root / 'i')))

    def test_emptying_leaves_what_migrator_did_not_make(self):
        path, = self.folders.claim_for_creation(UUID, self.storage.directories[:1])
        for name in ('vda.qcow2', 'vdb.raw', 'console.log', 'console.log.0', 'notes.txt'):
            self.put(f'i/{UUID}/{name}')
        self.assertIn('notes.txt', self.folders.empty(path, markers.CREATED))
        self.assertEqual(['notes.txt'], os.listdir(path))


class MigrationTest(Case):
    """A guest's directories at both ends of a migration."""

    def test_claim_marks_the_directory_and_the_host(self):
        self.folders.claim_for_migration(self.plan(source_host='other'))
        self.assertEqual(MIGRATION, markers.read(self.root / 'i' / UUID / markers.MIGRATION))
        self.assertEqual(MIGRATION, markers.read(self.folders.incoming_marker(UUID)))

    def test_claim_touches_nothing_where_something_is(self):
        for path in (f'i/{UUID}/vda.qcow2', f'i/{UUID}/notes', f'state/incoming/{UUID}'):
            file = self.put(path, b'precious')
            before = self.tree()
            self.assertRaises(exceptions.DestinationNotEmpty, self.folders.claim_for_migration, self.plan(source_host='other'))
            self.assertEqual(before, self.tree())
            os.unlink(file)
            if UUID in os.path.dirname(file):
                os.rmdir(os.path.dirname(file))

    def test_a_disk_outside_of_the_guests_directory_has_a_marker_beside_it(self):
        path = str(self.root / 'i/found.qcow2')
        plan = self.plan(path=path)
        self.folders.claim_for_migration(plan)
        self.put('i/found.qcow2', b'copy')
        self.folders.discard_migration(plan)
        self.assertEqual([markers.IDENTITY], os.listdir(self.root / 'i'))

    def test_a_foreign_disk_outside_of_the_guests_directory_stays(self):
        path = self.put('i/found.qcow2', b'precious')
        before = self.tree()
        self.assertRaises(exceptions.DestinationNotEmpty, self.folders.claim_for_migration, self.plan(path=path))
        self.folders.discard_migration(self.plan(path=path))
        self.assertEqual(before, self.tree())

    def test_a_plan_with_paths_elsewhere_is_refused_everywhere(self):
        os.symlink('/etc', self.root / 'i' / 'link')
        for path in ('/etc/passwd', str(self.root / 'x/d'), str(self.root / 'i/../state/d'), str(self.root / 'i/link/passwd')):
            for act in (self.folders.claim_for_migration, self.folders.discard_migration, self.folders.leave):
                before = self.tree()
                self.assertRaises(exceptions.InvalidRequest, act, self.plan(path=path))
                self.assertEqual(before, self.tree())

    def test_a_plan_that_copies_a_disk_it_does_not_have_is_refused(self):
        self.assertRaises(exceptions.InvalidRequest, self.folders.copied, self.plan(copy=('vdz',)))

    def test_settling_makes_a_managed_guests_directory_this_hosts_own(self):
        plan = self.plan(source_host='other')
        self.folders.claim_for_migration(plan)
        self.put(f'i/{UUID}/.migrator-tmp-{markers.CREATED}-abc')       # a crash left it
        for _ in range(2):
            self.folders.settle(plan, managed=True)
            self.assertEqual([markers.CREATED], os.listdir(self.root / 'i' / UUID))
            self.assertEqual([str(self.root / 'i' / UUID)], self.folders.created(UUID))
            self.assertEqual([], os.listdir(self.root / 'state/incoming'))

    def test_leaving_removes_disks_console_and_directory(self):
        self.folders.claim_for_creation(UUID, self.storage.directories[:1])
        for name in ('vda.qcow2', 'console.log', 'console.log.0', '.migrator-tmp-vda.qcow2'):
            self.put(f'i/{UUID}/{name}')
        self.assertEqual([], self.folders.leave(self.plan()))
        self.assertEqual([], self.folders.leave(self.plan()))
        self.assertEqual([markers.IDENTITY], os.listdir(self.root / 'i'))

    def test_leaving_keeps_what_is_not_in_the_plan_and_says_so(self):
        self.folders.claim_for_creation(UUID, self.storage.directories[:1])
        self.put(f'i/{UUID}/vda.qcow2')
        self.put(f'i/{UUID}/vdb.qcow2')
        stays, = self.folders.leave(self.plan())
        self.assertIn('vdb.qcow2', stays)
        self.assertEqual({'vdb.qcow2', markers.CREATED}, set(os.listdir(self.root / 'i' / UUID)))

    def test_leaving_never_touches_shared_disks(self):
        self.folders.claim_for_creation(UUID, self.storage.directories[:1])
        self.put(f'i/{UUID}/vda.qcow2')
        before = self.tree()
        self.assertEqual([], self.folders.leave(self.plan(copy=())))
        self.assertEqual(before, self.tree())

    def test_leaving_is_refused_when_the_markers_show_that_the_storage_is_shared(self):
        """Given a plan that is wrong about the storage, the only copy of the disk survives it."""
        for name, text in ((markers.MIGRATION, MIGRATION), (markers.CREATED, 'beta')):
            self.put(f'i/{UUID}/vda.qcow2', b'the only one')
            marker = self.put(f'i/{UUID}/{name}', text.encode())
            before = self.tree()
            self.assertRaises(exceptions.PreconditionFailed, self.folders.leave, self.plan())
            self.assertEqual(before, self.tree())
            os.unlink(marker)

    def test_leaving_is_refused_while_a_file_is_open(self):
        self.folders.claim_for_creation(UUID, self.storage.directories[:1])
        path = self.put(f'i/{UUID}/vda.qcow2')
        before = self.tree()
        with open(path, 'rb'):
            self.assertRaises(exceptions.PreconditionFailed, self.folders.leave, self.plan())
        self.assertEqual(before, self.tree())

    def test_a_marker_that_is_being_written_is_never_seen_half(self):
        with tempfile.TemporaryDirectory() as scratch:
            path = os.path.join(scratch, 'm')
            seen = set()
            done, ended = concurrency.native_event(), concurrency.native_event()

            def look():
                while not done.is_set():
                    seen.add(markers.read(path))
                ended.set()
            concurrency.native_thread(look)    # as the driver's methods run; a green one would look without an end and let nobody write
            for number in range(200):
                markers.replace(path, str(number % 2) * 36)
            done.set()
            self.assertTrue(ended.wait(20))
        self.assertLessEqual(seen, {'', '0' * 36, '1' * 36})


class TracesTest(Case):
    """What an audit finds in the directories."""

    def test_temporary_files_and_whose_they_are(self):
        """Given files that a crash left half made, then each is told with the guest or the migration that its place, name or text tells."""
        self.put(f'i/{UUID}/.migrator-tmp-vda.qcow2', b'QFI\xfb')
        self.put(f'x/.migrator-tmp-disk.raw{markers.MIGRATION}-abc', MIGRATION.encode())
        self.put(f'state/held/.migrator-tmp-{UUID}-abc')
        self.put('i/.migrator-tmp-.migrator-storage-id-x')
        found = {(t.what.removeprefix(f'{self.root}/'), t.instance_uuid, t.migration_id) for t in self.storage.traces()
                 if t.kind == 'temporary'}
        self.assertEqual({
            (f'i/{UUID}/.migrator-tmp-vda.qcow2', UUID, ''), (f'x/.migrator-tmp-disk.raw{markers.MIGRATION}-abc', '', MIGRATION),
            (f'state/held/.migrator-tmp-{UUID}-abc', UUID, ''), ('i/.migrator-tmp-.migrator-storage-id-x', '', '')}, found)

    def test_a_temporary_file_that_takes_its_place_meanwhile_is_not_told(self):
        temporary = self.put(f'i/{UUID}/.migrator-tmp-vda.qcow2')
        with mock.patch.object(storage, 'temporaries', side_effect=lambda directory: [temporary] if directory.endswith(UUID) else []):
            self.assertEqual(['temporary'], [t.kind for t in self.storage.traces() if t.what == temporary])
            os.unlink(temporary)
            self.assertEqual([], [t.kind for t in self.storage.traces() if t.what == temporary])

    def test_the_next_start_clears_half_made_notes(self):
        """Given a note that was being written when the agent died, when it starts again, then that is gone and whole notes are not."""
        half, whole = self.put(f'state/held/.migrator-tmp-{UUID}-abc'), self.put(f'state/incoming/{UUID}', MIGRATION.encode())
        self.storage.start()
        self.assertEqual((False, True), (os.path.lexists(half), os.path.lexists(whole)))

    def test_directories_markers_and_notes_of_guests_and_nothing_else(self):
        self.put(f'i/{UUID}/{markers.CREATED}', b'alpha')
        self.put(f'x/{UUID}/{markers.MIGRATION}', MIGRATION.encode())
        self.put(f'x/disk.raw{markers.MIGRATION}', MIGRATION.encode())
        self.put(f'i/.migrator-new-{UUID}-alpha/x')
        self.put(f'state/incoming/{UUID}', MIGRATION.encode())
        self.put('i/image.qcow2')
        found = {(t.kind, t.what.removeprefix(f'{self.root}/'), t.instance_uuid, t.migration_id, t.host) for t in self.storage.traces()}
        self.assertEqual({
            ('file', f'i/{UUID}', UUID, '', 'alpha'), ('file', f'x/{UUID}', UUID, MIGRATION, ''),
            ('file', f'x/disk.raw{markers.MIGRATION}', '', MIGRATION, ''), ('file', f'i/.migrator-new-{UUID}-alpha', UUID, '', ''),
            ('note', f'state/incoming/{UUID}', UUID, MIGRATION, '')}, found)
