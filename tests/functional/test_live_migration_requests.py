"""Requests to real daemons: several at once, to several conductors, and wrong ones; over RPC and by the command line's own process."""
import collections
import json
import os
import pathlib
import subprocess
import sys
import threading
import uuid

from migrator import exceptions
from migrator.rpc.conductor import ConductorAPI
from migrator.states import Status
from tests.cloud_case import CloudCase

ROOT = pathlib.Path(__file__).resolve().parents[2]


class TwoConductors(CloudCase):
    """Two conductors on one MariaDB share the work, whoever of them dies."""

    arguments = {'database': 'mysql', 'conductors': 2}

    def ask_at_once(self, *requests):
        """Ask for live migrations at the same time, each by a client of its own; gives the migrations or errors in their order."""
        clients = [ConductorAPI.from_url(self.lab.configuration.broker(), f'user-{n}') for n in range(len(requests))]
        barrier, answers = threading.Barrier(len(requests)), [None] * len(requests)

        def ask(number, arguments):
            clients[number].hosts()                                  # connected before the race begins
            barrier.wait(30)
            try:
                answers[number] = clients[number].live_migrate(**arguments)
            except exceptions.MigratorError as error:
                answers[number] = error
        threads = [threading.Thread(target=ask, args=pair) for pair in enumerate(requests)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        for client in clients:
            client.close()
        return answers

    def test_two_requests_for_one_instance(self):
        """Given several requests for one instance at the same time, one wins and the others learn that it is being migrated."""
        guest, _here, there = self.standing()
        request = {'instance': guest.uuid, 'destination_host': there, 'options': {'bandwidth_mib': 20}}
        answers = self.ask_at_once(*[dict(request, request_id=f'{guest.uuid}-{n}') for n in range(4)])
        kinds = collections.Counter(type(answer).__name__.removesuffix('_Remote') for answer in answers)
        self.assertEqual({'dict': 1, 'AlreadyMigrating': 3}, kinds, answers)
        won = next(answer for answer in answers if isinstance(answer, dict))
        self.assertEqual([], [str(error) for error in answers if error is not won and won['id'] not in str(error)])
        self.assert_outcome(self.cloud.ended(won), guest, there)
        self.assertEqual([won['id']], [m['id'] for m in self.api.list({'instance': guest.uuid, 'kind': 'live_migration'}, limit=1)])

    def test_one_request_asked_four_times(self):
        """Given a request that is repeated while it is worked on and after its end, there is one migration."""
        guest, _here, there = self.standing()
        before = len(self.api.list({'instance': guest.uuid, 'kind': 'live_migration'}))
        request = {'instance': guest.uuid, 'destination_host': there, 'request_id': f'once-{uuid.uuid4()}'}
        answers = self.ask_at_once(*[request] * 4)
        self.assertEqual(1, len({answer['id'] for answer in answers}), answers)
        ended = self.cloud.ended(answers[0])
        self.assertEqual(ended['id'], self.api.live_migrate(**request)['id'])
        self.assert_outcome(ended, guest, there)
        self.assertEqual(before + 1, len(self.api.list({'instance': guest.uuid, 'kind': 'live_migration'})))

    def working(self, *words):
        """Names of the conductors in whose log since their start stands a line with all of these words."""
        return [name for name in ('conductor-0', 'conductor-1')
                if any(all(word in line for word in words) for line in self.cloud.daemons[name].output().splitlines())]

    def test_one_dies_in_mid_migration(self):
        """Given a migration that copies, when the conductor that began it is killed for good, the other one completes it."""
        guest, _here, there = self.standing()
        with self.copying(guest, there, bandwidth_mib=20) as migration:
            begun = self.working('start live_migration', migration['id'])
            self.assertEqual(1, len(begun), begun)
            self.cloud.daemons[begun[0]].kill()
            ended = self.cloud.ended(migration)
        self.assert_outcome(ended, guest, there)
        self.assertFalse(self.cloud.daemons[begun[0]].running())

    def test_both_die_and_come_back(self):
        """Given a migration that copies, when all conductors die and the job ends meanwhile, the report is taken when they are back."""
        guest, _here, there = self.standing()
        with self.copying(guest, there, bandwidth_mib=20) as migration:
            for name in ('conductor-0', 'conductor-1'):
                self.cloud.daemons[name].kill()
            self.wait_for(lambda: self.cloud.where(guest) == {there: 'running'}, 'libvirt has moved it', 60)
            self.cloud.restart('conductor-1')
            ended = self.cloud.ended(migration)
        self.assert_outcome(ended, guest, there)

    def test_both_work(self):
        """Given some migrations, each of the two conductors has moved some of them on."""
        guest, here, there = self.standing()
        for host in (there, here):
            self.assert_outcome(self.cloud.migrate(guest, host), guest, host)
        self.assertEqual(['conductor-0', 'conductor-1'], self.working('migrator.conductor.engine', 'live_migration of'))


class WrongRequests(CloudCase):
    """What is refused: with a typed error over RPC, with one readable line on the command line, and with nothing changed."""

    def everything(self):
        """All that a request might change: workflows, guests, hosts; without what changes by itself."""
        hosts = [(host['name'], host['enabled'], host['instances'], host['migrations'], host['debts']) for host in self.api.hosts()]
        guests = [(guest['uuid'], guest['host'], guest['state'], guest['locked_by']) for guest in self.api.instances()]
        return [m['id'] for m in self.api.list()], sorted(guests), sorted(hosts)

    def command(self, *words):
        """Run the command line as a process of its own; gives the CompletedProcess."""
        program = pathlib.Path(sys.executable).with_name('migrator')
        argv = [str(program), '--config-file', str(self.lab.configuration.client()), *words]
        return subprocess.run(argv, cwd=self.lab.folder, env={**os.environ, 'PYTHONPATH': str(ROOT)}, capture_output=True, text=True,
                              timeout=120)

    def refuse(self, error, code, instance, host, options=None):
        """The request is refused with this error over RPC, and with this exit code and the error's name in one line by the command."""
        before = self.everything()
        said = self.assertRaises(error, self.api.live_migrate, instance, host, options=options)
        self.assertEqual(1, len(str(said).splitlines()), said)
        done = self.command('live-migrate', instance, host)
        self.assertEqual((code, '', 1), (done.returncode, done.stdout, len(done.stderr.splitlines())), done.stderr)
        self.assertIn(error.__name__, done.stderr)
        self.assertNotIn('Traceback', done.stderr)
        self.assertEqual(before, self.everything())
        return str(said)

    def test_unknown_and_same(self):
        """Given what does not exist, or a guest that is there already, the answer names it."""
        guest, here, there = self.standing()
        self.assertIn('nobody', self.refuse(exceptions.InstanceNotFound, 3, 'nobody', there))
        self.refuse(exceptions.InstanceNotFound, 3, str(uuid.uuid4()), there)
        self.assertIn('nowhere', self.refuse(exceptions.HostNotFound, 3, guest.name, 'nowhere'))
        self.assertIn(here, self.refuse(exceptions.SameHost, 4, guest.uuid, here))
        self.assert_unchanged(guest, here)

    def test_disabled_and_down(self):
        """Given a destination that is disabled, or whose agent has died, it is refused; a host that is up again is taken."""
        guest, here, there = self.standing()
        self.api.host_disable(there, 'its fan is loud')
        self.assertIn('its fan is loud', self.refuse(exceptions.HostDisabled, 4, guest.uuid, there))
        self.api.host_enable(there)
        self.cloud.daemons[there].kill()
        self.wait_for(lambda: self.api.host_show(there)['state'] == 'down', 'the host is down')
        self.assertIn(there, self.refuse(exceptions.HostDown, 4, guest.uuid, there))
        self.assert_unchanged(guest, here)
        self.cloud.restart(there)
        self.cloud.wait_hosts_up()
        self.assert_outcome(self.cloud.migrate(guest, there), guest, there)

    def test_migrating_already(self):
        """Given a guest that is being migrated, everything else that would touch it is refused; it is not disturbed."""
        guest, here, there = self.standing()
        with self.copying(guest, there, bandwidth_mib=4) as migration:
            self.assertIn(migration['id'], self.refuse(exceptions.AlreadyMigrating, 4, guest.uuid, there))
            for ask in (self.api.instance_stop, self.api.instance_start):
                self.assertRaises(exceptions.ResourceLocked, ask, guest.uuid)
            self.assertRaises(exceptions.Conflict, self.api.instance_delete, guest.uuid)
            self.api.abort(migration['id'])
            ended = self.cloud.ended(migration)
        self.assert_outcome(ended, guest, here, Status.CANCELLED)

    def test_not_running(self):
        """Given a guest that is stopped, it is not migrated; one that runs is not deleted."""
        guest = self.cloud.boot('beta')
        self.assertRaises(exceptions.InstanceRunning, self.api.instance_delete, guest.uuid)
        self.assertEqual(Status.COMPLETED, self.cloud.ended(self.api.instance_stop(guest.uuid, timeout=0))['status'])
        self.refuse(exceptions.InstanceNotRunning, 4, guest.uuid, 'alpha')
        self.assertEqual([], self.cloud.settled(guest, 'beta', 'stopped'))

    def test_wrong_types_and_sizes(self):
        """Given arguments of the wrong type, range or size, each is refused by name."""
        guest, here, there = self.standing()
        before = self.everything()
        for instance, host, options in ((5, there, {}), (guest.uuid, ['beta'], {}), (guest.uuid, '../beta', {}), ('', there, {}),
                                        (guest.uuid, there, {'bandwidth_mib': 'fast'}), (guest.uuid, there, {'bandwidth_mib': -1}),
                                        (guest.uuid, there, {'dry_run': 1}), (guest.uuid, there, {'speed': 1}), (guest.uuid, there, [1])):
            self.assertRaises(exceptions.InvalidRequest, self.api.live_migrate, instance, host, options=options)
        self.assertRaises(exceptions.PayloadTooLarge, self.api.instance_create, here, self.cloud.spec() | {'cmdline': 'x' * (2 << 20)})
        self.assertRaises(exceptions.InvalidRequest, self.api.instance_create, here, self.cloud.spec() | {'memory_mib': '64'})
        self.assertRaises(exceptions.InvalidRequest, self.api.show, 'no-uuid')
        self.assertRaises(exceptions.MigrationNotFound, self.api.show, str(uuid.uuid4()))
        self.assertEqual(before, self.everything())
        self.assert_unchanged(guest, here)

    def test_the_command_line_migrates(self):
        """Given a running guest, the command migrates it by name, waits, and shows the timeline; its exit code says how it went."""
        guest, _here, there = self.standing()
        dry = self.command('live-migrate', guest.name, there, '--dry-run', '-f', 'json')
        self.assertEqual(0, dry.returncode, dry.stderr)
        done = self.command('live-migrate', guest.name, there, '--wait')
        self.assertEqual(0, done.returncode, done.stderr)
        latest = self.api.list({'instance': guest.uuid, 'kind': 'live_migration'}, limit=1)[0]
        self.assert_outcome(self.api.show(latest['id']), guest, there)
        shown = self.command('migration', 'show', latest['id'], '-f', 'json')
        self.assertEqual(0, shown.returncode, shown.stderr)
        self.assertIn(latest['id'], json.dumps(json.loads(shown.stdout)))
        listed = self.command('instance', 'list', '-f', 'json')
        self.assertIn(there, [row['host'] for row in json.loads(listed.stdout) if guest.uuid in row.values()], listed.stdout)
        late = self.command('migration', 'abort', latest['id'])
        self.assertEqual((4, 1), (late.returncode, len(late.stderr.splitlines())), late.stderr)
        self.assertIn('TooLate', late.stderr)
