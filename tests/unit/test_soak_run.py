"""The soak's course and its command, on a stage of nothing: what it finds it tells by exit code, folder, file and words."""
import contextlib
import io
import json
import re
import subprocess
import threading
import types
from unittest import mock

import fixtures

from migrator import exceptions
from migrator.rpc import journal
from tests import base
from tests.lab import LabError
from tests.soak import __main__ as command
from tests.soak import faults, lab, moves, plan, rules, run, watch

MOVE = plan.Move(at=0.0, number=7, guest=0, shift=0, doubled=False, abort_after=None)
ARGUMENTS = ('--minutes', '0.02', '--rate', '200')


def row(status):
    """Give a migration as the database has it."""
    return rules.Row('m1', 'g', 'a', 'b', status, 'operation', 'live_migration')


class API:
    """A conductor of which every request is answered in one way. answer: a migration, or what is raised."""

    def __init__(self, answer):
        self.answer, self.requests = answer, []

    def instance_show(self, _guest):
        """Say where the guest is."""
        return {'host': 'a'}

    def live_migrate(self, *arguments, **options):
        """Answer."""
        self.requests.append((arguments, options))
        if isinstance(self.answer, BaseException):
            raise self.answer
        return {'id': 'm1'}

    def abort(self, _migration):
        """Refuse: it is over already."""
        raise exceptions.TooLate('it has ended')

    def audit(self):
        """Find nothing."""
        return {'findings': [], 'debts': [], 'not_audited': []}


class Stage:
    """A cloud of nothing. found: what each look finds, or raises. rows: its migrations."""

    kinds = {'driver failure': plan.Kind(1)}
    bound, settle, settling, options = 60.0, 1.0, 1.0, None
    hosts, guests, agents, conductors = ('a', 'b'), ('g',), (), ()
    broker = database_server = types.SimpleNamespace(stopped=None, frozen=None)

    def __init__(self, answer=None, found=(), rows=('completed',)):
        self.api, self.found, self.daemons = API(answer), found, {}
        self.actions = {'driver failure': lambda fault: None}
        self.database = types.SimpleNamespace(run=lambda _read: [row(status) for status in rows])

    def __enter__(self):
        return self

    def __exit__(self, *_raised):
        pass

    def look(self):
        """Find what was given."""
        if isinstance(self.found, BaseException):
            raise self.found
        return list(self.found)

    remains = look

    def unmet(self):
        """No failure is left."""
        return 0

    def keep(self, folder):
        """Keep a log."""
        (folder / 'log').write_text('what was seen')


class CommandCase(base.TestCase):
    """Runs the command with a stage of nothing."""

    def setUp(self):
        super().setUp()
        for name, seconds in (('SETTLE', 1.0), ('LOOK', 0.1)):
            patched = mock.patch.object(run, name, seconds)
            patched.start()
            self.addCleanup(patched.stop)

    def soak(self, stage, *argv):
        """Run it; returns (exit code, what it printed, its errors)."""
        out, err = io.StringIO(), io.StringIO()
        with mock.patch.object(command, 'stage_of', lambda _arguments, _seed: stage), \
                contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = command.main(argv)
            except SystemExit as refused:
                code = refused.code
        return code, out.getvalue(), err.getvalue()


class TestExitCodes(CommandCase):
    """What a soak says when it is over."""

    def test_clean(self):
        """Given a soak that finds nothing, the code is 0, no folder is kept, the seed is printed, and the file has the results."""
        file = self.temp_dir / 'results.json'
        code, out, _ = self.soak(Stage(), *ARGUMENTS, '--json', str(file))
        self.assertEqual(0, code)
        self.assertNotIn('logs and what else', out)
        seed = re.match('seed ([0-9a-f]{8}): ', out)[1]
        self.assertIn(f'0 violations; seed {seed}', out)
        self.assertEqual((seed, {}, {'completed': 1}), tuple(json.loads(file.read_text())[k] for k in ('seed', 'violations', 'outcomes')))

    def test_violation(self):
        """Given a violation, the code is 1, it is told, and a folder that is named has the logs and the results; the file has them too."""
        file = self.temp_dir / 'results.json'
        code, out, _ = self.soak(Stage(found=['two running copies of g']), *ARGUMENTS, '--seed', 'x', '--json', str(file))
        self.assertEqual(1, code)
        self.assertIn('seed x: ', out)
        self.assertIn('VIOLATION after 0 s: two running copies of g', out)
        folder = re.search('logs and what else there is to see: (.*)', out)[1]
        with open(f'{folder}/log') as log:
            self.assertEqual('what was seen', log.read())
        with open(f'{folder}/results.json') as kept:
            for results in (json.load(kept), json.loads(file.read_text())):
                self.assertEqual(['two running copies of g'], list(results['violations']))

    def test_nothing_works(self):
        """Given requests that are all answered by a defect, or migrations that all fail, or none that ends, the code is 1."""
        for stage, words in ((Stage(exceptions.InternalError('no')), 'request 0 was answered by a defect: no'),
                             (Stage(rows=['failed', 'completed', 'failed']), 'only 1 of 3 migrations that ended have completed'),
                             (Stage(rows=['running']), 'no migration has ended, so nothing was shown')):
            code, out, _ = self.soak(stage, *ARGUMENTS)
            self.assertEqual(1, code, out)
            self.assertIn(f' s: {words}', out)

    def test_broken_off(self):
        """Given a look that raises, an interruption, or a cloud that does not come up, the code is 3, in words, and the logs are kept."""
        for error in (TimeoutError('too slow'), KeyboardInterrupt('stopped')):
            code, out, err = self.soak(Stage(found=error), *ARGUMENTS)
            self.assertEqual(3, code)
            self.assertIn(f'could not be brought to its end: {type(error).__name__}: {error}', err)
            self.assertIn('logs and what else there is to see: ', out)
        down = Stage()
        inner = fixtures.MultipleExceptions((LabError, LabError('no broker'), None), (OSError, OSError('a second one'), None))
        error = fixtures.MultipleExceptions((type(inner), inner, None))
        down.__class__ = type('Down', (Stage,), {'__enter__': mock.Mock(side_effect=error)})
        code, _, err = self.soak(down, *ARGUMENTS)
        self.assertEqual((3, 'tools/soak: it could not be brought to its end: LabError: no broker\n'), (code, err))

    def test_broken_off_after_a_violation(self):
        """Given a violation and then a look that raises, the code is 1, and the folder has the violation."""
        stage = Stage()
        stage.look = mock.Mock(side_effect=[['two running copies of g'], OSError('no more')])
        code, out, _ = self.soak(stage, *ARGUMENTS)
        self.assertEqual(1, code)
        with open(re.search('there is to see: (.*)', out)[1] + '/results.json') as kept:
            self.assertEqual(['two running copies of g'], list(json.load(kept)['violations']))

    def test_a_host_that_cannot_be_asked(self):
        """Given looks that cannot be had for now, those are counted as blind; at the end somebody has to be able to look."""
        code, out, _ = self.soak(Stage(found=LabError('libvirt is away')), *ARGUMENTS)
        self.assertEqual(1, code)
        self.assertIn('0 looks at everything', out)
        self.assertIn('nobody could look: libvirt is away', out)


class TestOptions(CommandCase):
    """Options that make no sense are refused before anything is done."""

    def test_numbers(self):
        """Given a number that is not above zero, or none at all, the code is 2, with the option and the number in words."""
        for option in ('--minutes', '--rate', '--faults'):
            for value in ('0', '-5', 'nan', 'inf', 'many'):
                code, out, err = self.soak(Stage(), f'{option}={value}')
                self.assertEqual((2, ''), (code, out))
                self.assertIn(f'argument {option}: {value} is no number above 0', err)

    def test_counts(self):
        """Given too few hosts or guests, or parts of one, the code is 2."""
        for option, value, least in (('--hosts', '1', 2), ('--hosts', '0', 2), ('--hosts', '2.5', 2), ('--guests', '0', 1),
                                     ('--guests', '-1', 1)):
            code, _, err = self.soak(Stage(), f'{option}={value}')
            self.assertEqual(2, code)
            self.assertIn(f'{value} is no whole number of at least {least}', err)

    def test_a_file_that_cannot_be_written(self):
        """Given a file for the results in a folder that is not there, or a folder, it is refused before the soak, not after it."""
        for path in (self.temp_dir / 'none/x.json', self.temp_dir):
            stage = Stage()
            code, _, err = self.soak(stage, *ARGUMENTS, '--json', str(path))
            self.assertEqual((2, []), (code, stage.api.requests))
            self.assertIn(f'{path} cannot be written', err)


class TestMover(base.TestCase):
    """What an answer is, and what none is."""

    def ask(self, api, troubles, patience=0.0):
        """Make one request, and wait for what comes of it. Returns the Mover."""
        mover = moves.Mover(api, ['a', 'b'], ['g'], 'seed', troubles, patience=patience)
        mover.ask(MOVE)
        mover.finish()
        return mover

    def test_refusals(self):
        """Given a refusal, it is counted, and no violation; a defect is one."""
        mover = self.ask(API(exceptions.AlreadyMigrating('busy')), rules.Troubles())
        self.assertEqual(({'AlreadyMigrating': 1}, []), (dict(mover.refused), mover.violations))
        mover = self.ask(API(exceptions.InternalError('a defect')), rules.Troubles())
        self.assertEqual(['request 7 was answered by a defect: a defect'], mover.violations)

    def test_no_answer_although_all_is_well(self):
        """Given no answer for all the patience while nothing is disturbed, that is a violation."""
        mover = self.ask(API(exceptions.Unavailable('nobody')), rules.Troubles(), patience=0.2)
        self.assertEqual(1, len(mover.violations))
        self.assertIn('request 7 had no answer for 0.2 s', mover.violations[0])

    def test_no_answer_in_trouble(self):
        """Given no answer while a server is disturbed, the request is made again by its id for as long, and the answer then counts."""
        for key in ('broker', 'database', 'conductors'):
            troubles, api, asked = rules.Troubles(), API(exceptions.Unavailable('nobody')), threading.Semaphore(0)
            answer = api.live_migrate
            api.live_migrate = lambda *a, answer=answer, asked=asked, **o: (asked.release(), answer(*a, **o))[1]
            troubles.begin(key)
            mover = moves.Mover(api, ['a', 'b'], ['g'], 'seed', troubles, patience=0.1)
            mover.ask(MOVE)
            for _ in range(2):
                self.assertTrue(asked.acquire(timeout=30))
            api.answer = None
            mover.finish()
            self.assertEqual(([], {7: 'm1'}), (mover.violations, mover.accepted))
            self.assertEqual({'soak-seed-7'}, {options['request_id'] for _, options in api.requests})


class TestSaboteur(base.TestCase):
    """Whom a trouble concerns."""

    def test_conductors_are_in_trouble_together(self):
        """Given two conductors, one that is disturbed is no trouble; both are one until the first is back; a host is one by itself."""
        stage, troubles = Stage(), rules.Troubles()
        stage.conductors = ['c0', 'c1']
        saboteur = faults.Saboteur(stage, troubles)
        self.addCleanup(saboteur._pool.shutdown)

        def calm(*keys):
            return troubles.calm(keys, 1e9, 1e9 + 1) == 1
        with saboteur.holding('c0'):
            self.assertTrue(calm('conductors'))
            with saboteur.holding('c1'), saboteur.holding('a'):
                self.assertFalse(calm('conductors'))
                self.assertFalse(calm('a'))
                self.assertRaises(faults.Busy, saboteur.holding('c1').__enter__)
            self.assertTrue(calm('conductors'))
        self.assertTrue(calm('conductors', 'a', 'c0', 'c1'))

    def test_what_died_is_started_again(self):
        """Given daemons that died by themselves, each is started again, and until then its host is in trouble."""
        stage, troubles, began = Stage(), rules.Troubles(), threading.Barrier(3)
        up = {'a': False, 'b': False}

        def restart(name):
            began.wait(30)              # both at once: neither waits for the other
            began.wait(30)
            up[name] = True
        stage.daemons = {name: types.SimpleNamespace(running=lambda name=name: up[name]) for name in up}
        stage.restart = restart
        saboteur = faults.Saboteur(stage, troubles)
        saboteur.start()
        began.wait(30)
        self.assertEqual(0.0, troubles.calm('a', 0, 10))
        self.assertEqual(0.0, troubles.calm('b', 0, 10))
        began.wait(30)
        saboteur.finish()
        self.assertEqual(({'a': True, 'b': True}, []), (up, saboteur.errors))


class TestLabLook(base.TestCase):
    """A look in the lab, on hosts of nothing: what libvirt, the catalogue and the agents' journals say."""

    GUEST = 'g'

    def setUp(self):
        super().setUp()
        self.stage = lab.LabStage(2, 1, 'mysql')
        self.says = {'a': {self.GUEST: 'running'}, 'b': {}}        # host: {guest: state}
        self.catalogue = {self.GUEST: ('a', 1, 1)}
        self.stage.hosts, self.stage.guests = ['a', 'b'], [self.GUEST]
        self.stage.cloud = types.SimpleNamespace(hosts={name: self.host(name) for name in self.says})
        self.stage.database = types.SimpleNamespace(run={watch.orphaned_locks: list, watch.catalogue: lambda: self.catalogue}.get)
        run = self.stage.database.run
        self.stage.database.run = lambda read: run(read)()

    def host(self, name):
        """Give a host with an agent's journal."""
        def virsh(what, *words, **_options):
            return '\n'.join(self.says[name]) if what == 'list' else self.says[name][words[0]]
        state = self.temp_dir / name
        noted = journal.Journal(str(state / f'{name}-journal.db'))
        self.addCleanup(noted.close)
        return types.SimpleNamespace(state=state, virsh=virsh, journal=noted)

    def note(self, host, op_id, method='live_migration'):
        """Have an agent note that it begins an operation."""
        self.stage.cloud.hosts[host].journal.begin(journal.Operation(op_id, op_id.partition('/')[0], 1, method, '', 'p'))

    def test_all_is_well(self):
        """Given a guest where the catalogue has it, and one job of each migration, nothing is found."""
        self.note('a', 'm1/live_migration/1')
        self.note('b', 'm2/live_migration/1')
        self.note('b', 'm1/pre_live_migration/1', 'pre_live_migration')
        self.note('b', 'm1/pre_live_migration/2', 'pre_live_migration')
        self.assertEqual([], self.stage.look())

    def test_the_catalogue(self):
        """Given a catalogue that has another host than the guest's, that is told, but not while a migration is under way."""
        self.catalogue = {self.GUEST: ('b', 1, 1)}
        self.assertEqual(['the catalogue has g at b, it runs at a'], self.stage.look())
        self.catalogue = {self.GUEST: ('b', 2, 1)}
        self.assertEqual([], self.stage.look())

    def test_done_twice(self):
        """Given a migration whose job was begun twice, at one host or at two, it is told."""
        for host, op_id in (('a', 'm1/live_migration/1'), ('a', 'm1/live_migration/2'), ('a', 'm2/live_migration/1'),
                            ('b', 'm2/live_migration/1')):
            self.note(host, op_id)
        self.assertEqual(['migration m1 was executed 2 times', 'migration m2 was executed 2 times'], self.stage.look())

    def test_no_good_copy(self):
        """Given a guest that is paused without a migration for longer than the bound, it is told; the catalogue is no matter then."""
        self.says = {'a': {self.GUEST: 'paused'}, 'b': {}}
        with mock.patch.object(lab.time, 'monotonic', side_effect=range(100, 200, 5)):
            found = [self.stage.look() for _ in range(6)]
        self.assertEqual([[]] * 5 + [['no host has a good copy of g, only one that is paused']], found)

    def test_two_running_copies(self):
        """Given two running copies, that is told."""
        self.says['b'] = {self.GUEST: 'running'}
        self.assertIn('two running copies of g: a, b', self.stage.look())

    def test_somebody_cannot_be_asked(self):
        """Given a libvirt that does not answer, or a journal that cannot be read, LabError says so: the look is made later."""
        self.stage.cloud.hosts['b'].virsh = mock.Mock(side_effect=subprocess.TimeoutExpired('virsh', 30))
        self.assertIn('b: libvirt does not answer', str(self.assertRaises(LabError, self.stage.look)))
        (self.temp_dir / 'b/b-journal.db').unlink()
        (self.temp_dir / 'b/b-journal.db').mkdir()
        self.assertIn('a journal cannot be read', str(self.assertRaises(LabError, self.stage.look)))
