"""Volumes on real arrays that may not move: refused in words, with nothing made or changed at any array."""
import subprocess

from migrator import exceptions
from migrator.conductor.db import tables
from migrator.states import Status
from tests.functional.real_arrays import MIB, RealArraysCase

TYPES = {'a': 'silver', 'b': 'gold', 'c': 'silver'}


class RefusalsTest(RealArraysCase):
    """LUNs as qcow2 files, which may have snapshots inside; and arrays that serve types."""

    form = 'qcow2'

    def backend(self, name, **options):
        """Describe an array as a backend that serves a type."""
        return super().backend(name, types=TYPES[name], **options)

    def made(self, name, **options):
        """Make a volume at east@a#fast."""
        ended = self.cluster.ended(self.api.volume_create(name, 64 * MIB, 'east@a#fast', **options))
        self.assertEqual(Status.COMPLETED, ended['status'], ended)

    def assert_refused(self, error, words, volume, destination, **options):
        """It is, whatever way is asked for; in the database and at the arrays everything is as before."""
        before = self.as_it_is()
        for more in ({}, {'force_host_copy': True}, {'dry_run': True}):
            said = self.assertRaises(error, self.api.volume_migrate, volume, destination, options={**options, **more})
            self.assertIn(words, str(said))
        self.assertEqual(before, self.as_it_is())

    def test_what_the_catalogue_knows(self):
        """Given volumes for several guests, with a guest, and of a type, when they are to go where they may not, or are, or to nowhere."""
        guest = self.cluster.create('one')
        self.made('shared', multiattach=True)
        self.made('used')
        self.made('plain')
        self.made('typed', type='silver')
        several = 'volume shared may be attached to several instances at once'
        for destination in ('west@b', 'east@c#slow', 'east@a#slow'):
            self.assert_refused(exceptions.MigrationRefused, several, 'shared', destination)
        self.assert_refused(exceptions.MigrationRefused, several, 'shared', 'west@b', new_type='gold')
        for volume in ('shared', 'used'):
            self.assertEqual(Status.COMPLETED, self.cluster.ended(self.api.volume_attach(volume, guest))['status'])
            self.assert_refused(exceptions.VolumeInUse, f'volume {volume} is attached to', volume, 'west@b')
        for destination in ('east@a#fast', 'east@a'):
            self.assert_refused(exceptions.SameBackend, 'volume plain is at east@a#fast already', 'plain', destination)
        self.assert_refused(exceptions.InvalidRequest, 'there is no volume type copper; there are gold, silver', 'plain', 'west@b',
                            new_type='copper')
        self.assert_refused(exceptions.MigrationRefused, 'east@c does not serve volumes of type gold; its types: silver', 'plain',
                            'east@c#fast', new_type='gold')
        self.assert_refused(exceptions.MigrationRefused, 'west@b does not serve volumes of type silver', 'typed', 'west@b#fast')
        for destination in ('west@nothing', 'west@b#nothing'):
            self.assert_refused(exceptions.BackendNotFound, destination, 'plain', destination)

    def test_snapshots_which_only_the_array_knows(self):
        """Given a volume with a snapshot that somebody made, when it is to move in any way, then that is refused in words before
        anything is made, and the database has no more than that; without the snapshot it moves."""
        self.made('data')
        source = self.file()
        subprocess.run(['qemu-img', 'snapshot', '-c', 'kept', source], check=True, timeout=60)
        # That it was refused, and why; what it was promised counts no more once it has ended.
        told = tables.migration, tables.event, tables.volume, tables.reservation
        before = self.as_it_is(without=told)
        for where, options in (('west@b', {}), ('west@b', {'force_host_copy': True}), ('west@b', {'new_type': 'gold'}),
                               ('east@a#slow', {})):
            ended = self.cluster.ended(self.api.volume_migrate('data', where, options=options))
            self.assertEqual(Status.FAILED, ended['status'])
            self.assertIn('the volume has 1 snapshots, which would be lost', ended['error'])
            self.assertEqual([], self.steps(ended))
            self.assertEqual(before, self.as_it_is(without=told))
            self.assertEqual(('available', source), (self.api.volume_show('data')['status'], self.file()))
        subprocess.run(['qemu-img', 'snapshot', '-d', 'kept', source], check=True, timeout=60)
        self.migrate('west@b#fast')
        self.assertEqual((False, True), (source.exists(), self.file().exists()))
        self.assertIn(self.file().name, self.arrays['b'].files())
