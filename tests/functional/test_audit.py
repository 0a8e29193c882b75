"""`migrator audit` with real hosts: each kind of leftover is planted by hand and named; after migrations there is none."""
import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import uuid

import libvirt
from lxml import etree
from oslo_config import cfg

from migrator import config
from migrator.cli import exit_codes
from migrator.conductor.db import tables
from migrator.rpc import compute, facts, transport
from migrator.rpc.context import MigratorContext
from migrator.states import Status
from tests.cloud_case import CloudCase
from tests.lab.config import ROOT


class AuditCase(CloudCase):
    """A guest that stands, and the command as an operator runs it."""

    def audit(self, *argv):
        """Run `migrator audit`. Returns (exit code, the findings that it prints)."""
        env = {**os.environ, 'MIGRATOR_TRANSPORT_URL': self.lab.configuration.broker(), 'PYTHONPATH': str(ROOT)}
        done = subprocess.run([sys.executable, '-m', 'migrator.cli.main', 'audit', '-f', 'json', *argv], env=env, capture_output=True,
                              text=True, timeout=60)
        self.assertEqual('', done.stderr)
        return done.returncode, json.loads(done.stdout)

    def assert_named(self, kind, host, resource, words):
        """One thing is found, of this kind, at this host, and it is said what it is and what to do; the exit code says so too."""
        code, rows = self.audit()
        self.assertEqual((exit_codes.FOUND, [(kind, host, resource)]), (code, [(r['kind'], r['host'], r['resource']) for r in rows]), rows)
        self.assertIn(words, rows[0]['what'])
        self.assertTrue(rows[0]['todo'])

    def assert_clean(self):
        """Nothing is found, and every host was asked."""
        self.assert_nothing_leaked()
        self.assertEqual((exit_codes.OK, []), self.audit())


class TestNothing(AuditCase):
    """After migrations, whichever way they end, nothing is found."""

    def test_after_migrations(self):
        """Given a migration that completed, one that failed in its preparation, and one that was aborted, nothing is found after each."""
        guest, here, there = self.standing()
        self.assertEqual(Status.COMPLETED, self.cloud.migrate(guest, there)['status'])
        self.assert_clean()
        place = self.lab.host(here)
        place.run(['mount', '--bind', '/bin/false', '/usr/bin/qemu-img'])
        try:
            self.assertEqual(Status.FAILED, self.cloud.migrate(guest, here)['status'])
        finally:
            place.run(['umount', '/usr/bin/qemu-img'])
        self.assert_clean()
        with self.copying(guest, here) as migration:
            self.assertEqual((exit_codes.OK, []), self.audit(), 'what a migration is at work on')
            self.api.abort(migration['id'])
            self.assertEqual(Status.CANCELLED, self.cloud.ended(migration)['status'])
        self.assert_clean()

    def test_a_host_that_cannot_be_asked(self):
        """Given a host without an agent, the audit says that it could not be asked, and the exit code tells that from nothing found."""
        self.standing()
        agent = self.cloud.daemons['beta']
        agent.terminate(30)
        self.wait_for(lambda: self.api.host_show('beta')['state'] == 'down', 'beta is down')
        code, rows = self.audit()
        self.assertEqual((exit_codes.NOT_AUDITED, ['not audited']), (code, [row['kind'] for row in rows if row['host'] == 'beta']), rows)


class TestLeftovers(AuditCase):
    """What somebody, or a defect, has left."""

    @contextlib.contextmanager
    def defined(self, host, xml, start=False):
        """A domain that was defined by hand, for the length of a with block."""
        connection = libvirt.open(host.uri)
        domain = connection.defineXML(xml)
        try:
            if start:
                domain.create()
            yield
        finally:
            if domain.isActive():
                domain.destroy()
            domain.undefine()
            connection.close()

    def bare(self, host, guest, **changes):
        """The guest's definition without its disks and its console. changes: texts of elements."""
        root = etree.fromstring(self.lab.host(host).virsh('dumpxml', '--inactive', guest.uuid))
        for element in [*root.iter('disk'), *root.iter('serial'), *root.iter('console')]:
            element.getparent().remove(element)
        for name, text in changes.items():
            root.find(name).text = text
        return etree.tostring(root, encoding='unicode')

    def test_a_domain_of_a_guest_that_is_elsewhere(self):
        """Given a definition with migrator's mark at a host where the guest is not, it is named, with the host that has the guest."""
        guest, here, there = self.standing()
        with self.defined(self.lab.host(there), self.lab.host(here).virsh('dumpxml', '--inactive', guest.uuid)):
            self.assert_named('leftover domain', there, guest.uuid, here)
        self.assert_clean()

    def test_a_second_copy(self):
        """Given a guest that somebody has started a second time, both hosts are named."""
        guest, here, there = self.standing()
        with self.defined(self.lab.host(there), self.bare(here, guest), start=True):
            self.assert_named('two copies running', ', '.join(sorted((here, there))), guest.uuid, here)
        self.assert_clean()

    def test_a_guest_of_nobody_and_a_guest_that_is_gone(self):
        """Given a domain that migrator does not know, it is taken into the catalogue; when it is taken away by hand, it is missing."""
        guest, here, there = self.standing()
        other = str(uuid.uuid4())
        with self.defined(self.lab.host(there), self.bare(here, guest, uuid=other, name='stranger')):
            self.wait_for(lambda: other in [row['uuid'] for row in self.api.instances()], 'the stranger is known')
            self.assert_clean()
        self.assert_named('guest missing', there, other, 'does not know it')
        self.cloud.database.run(lambda tx: tx.execute(tables.instance.delete().where(tables.instance.c.uuid == other)))
        self.assert_clean()

    def test_files(self):
        """Given files of a migration that is not under way, of a guest that is elsewhere, and of nobody, each of them is named."""
        guest, here, there = self.standing()
        stranger, migration = str(uuid.uuid4()), str(uuid.uuid4())
        for owner, marker, words in ((stranger, {'.migrator-migration': migration}, migration), (stranger, {}, 'no guest'),
                                     (guest.uuid, {}, here), (guest.uuid, {'.migrator-created': there}, here)):
            with self.folder(there, owner, {'vda.qcow2': 'a disk', **marker}):
                self.assert_named('file', there, str(self.lab.instances / owner), words)
        self.assert_clean()

    @contextlib.contextmanager
    def folder(self, host, name, files):
        """A folder with files among the instances of a host, for the length of a with block."""
        path = self.lab.host(host).instances_outside / name
        path.mkdir()
        for file, text in files.items():
            (path / file).write_text(f'{text}\n')
        try:
            yield
        finally:
            for file in files:
                (path / file).unlink()
            path.rmdir()

    def test_the_marker_of_a_single_disk(self):
        """Given the marker that a migration puts beside a disk outside of the guest's folder, it is named."""
        _guest, _here, there = self.standing()
        marker = self.lab.host(there).instances_outside / 'data.qcow2.migrator-migration'
        migration = str(uuid.uuid4())
        marker.write_text(f'{migration}\n')
        self.addCleanup(marker.unlink)
        self.assert_named('file', there, str(self.lab.instances / marker.name), migration)

    def test_notes(self):
        """Given a note that a guest is expected, and one that a guest is held, of no migration that is under way, both are named."""
        guest, _here, there = self.standing()
        migration = str(uuid.uuid4())
        for kind in ('incoming', 'held'):
            note = self.lab.host(there).state / kind / guest.uuid
            note.write_text(f'{migration}\n')
            try:
                self.assert_named('note', there, str(note), migration)
            finally:
                note.unlink()
        self.assert_clean()

    def test_temporary_files(self):
        """Given files that were being made when an agent died, beside a guest's disks and among the notes, each of them is named."""
        guest, here, there = self.standing()
        for path, shown in (
                (self.lab.host(here).instances_outside / guest.uuid / '.migrator-tmp-vda.qcow2', self.lab.instances / guest.uuid),
                (self.lab.host(here).instances_outside / '.migrator-tmp-x', self.lab.instances),
                (self.lab.host(here).state / 'held' / f'.migrator-tmp-{guest.uuid}-x', self.lab.host(here).state / 'held')):
            path.write_text('half of it')
            try:
                self.assert_named('temporary file', here, str(shown / path.name), 'was being made')
            finally:
                path.unlink()
        self.assert_clean()

    def test_an_end_that_no_conductor_acknowledged(self):
        """Given an operation in an agent's journal that no conductor has acknowledged for a while, it is named."""
        _guest, _here, there = self.standing()
        migration = str(uuid.uuid4())
        op_id = f'{migration}/pre_live_migration/1'
        with contextlib.closing(sqlite3.connect(self.lab.host(there).state / f'{there}-journal.db', timeout=10)) as journal:
            journal.execute('INSERT INTO operation (op_id, migration_id, epoch, method, digest, process_id, state, started, finished) '
                            "VALUES (?, ?, 1, 'pre_live_migration', '', '', 'interrupted', 0, 0)", (op_id, migration))
            journal.commit()
            self.assert_named('report', there, op_id, 'interrupted')
            journal.execute('DELETE FROM operation WHERE op_id = ?', (op_id,))
            journal.commit()
        self.assert_clean()

    def test_places(self):
        """Given a host whose counter of places says that a migration runs which does not, it is named, with the number that is right."""
        _guest, _here, there = self.standing()
        for number, found in ((1, True), (0, False)):
            self.cloud.database.run(lambda tx, number=number: tx.execute(
                tables.service.update().where(tables.service.c.host == there).values(places=number)))
            if found:
                self.assert_named('places', there, there, '0 migrations')
        self.assert_clean()

    def test_a_lock(self):
        """Given a lock without a migration that holds it, it is named."""
        self.standing()
        resource, migration = f'instance:{uuid.uuid4()}', str(uuid.uuid4())
        self.cloud.database.run(lambda tx: tx.execute(tables.resource_lock.insert().values(
            resource=resource, migration_id=migration, mode='exclusive')))
        self.assert_named('lock', '', resource, migration)
        self.cloud.database.run(lambda tx: tx.execute(tables.resource_lock.delete().where(tables.resource_lock.c.resource == resource)))
        self.assert_clean()

    def test_an_operation_that_nobody_knows(self):
        """Given an agent at work on what no migration and no debt has asked for, it is named by its id; when it has ended, it is not."""
        _guest, _here, there = self.standing()
        place, owner = self.lab.host(there), str(uuid.uuid4())
        slow = self.lab.folder / 'state' / 'slow-qemu-img'
        slow.write_text('#!/bin/sh\nsleep 10\nexit 1\n')
        slow.chmod(0o755)
        place.run(['mount', '--bind', str(slow), '/usr/bin/qemu-img'])
        self.addCleanup(place.run, ['umount', '--lazy', '/usr/bin/qemu-img'])
        guest = self.create_instance(there, owner)
        code, rows = self.audit()
        self.assertEqual((exit_codes.FOUND, {('operation', f'{owner}/create_instance/1'), ('file', str(self.lab.instances / guest))}),
                         (code, {(row['kind'], row['resource']) for row in rows}), rows)
        self.wait_for(lambda: self.audit() == (exit_codes.OK, []), 'it has ended and left nothing', 40)

    def create_instance(self, host, owner):
        """Ask an agent, as no conductor does, to make a guest. Returns its uuid."""
        conf = config.register(cfg.ConfigOpts())
        conf([], project='migrator', default_config_files=[], default_config_dirs=[])
        connection = transport.get_transport(conf, self.lab.configuration.broker())
        self.addCleanup(connection.close)
        spec = facts.InstanceSpec(uuid=str(uuid.uuid4()), name='nobody', memory_mib=64,
                                  disks=(facts.NewDisk(target='vda', size=1 << 20),))
        envelope = facts.Envelope(op_id=f'{owner}/create_instance/1', migration_id=owner, epoch=1)
        compute.ComputeAPI(conf, connection).create_instance(MigratorContext(migration_id=owner, overwrite=False), host, envelope, spec)
        return spec.uuid
