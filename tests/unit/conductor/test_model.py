"""The model check of every registered workflow: it holds; and a table, an agent or a core that is broken on purpose is caught.

`python -m tests.model.search` walks further, and so does MIGRATOR_TEST_FULL=1 here; what bounds each search is printed.
"""
import dataclasses
import os

import testscenarios
import testtools

from migrator.conductor import stimulus
from migrator.conductor.cursor import Kind, Phase
from migrator.conductor.decide import next_action
from migrator.conductor.locate_volume import Answer, Said
from migrator.conductor.workflows import WORKFLOWS
from migrator.conductor.workflows.instance import HERE, INSTANCE_CREATE, INSTANCE_DELETE
from migrator.conductor.workflows.live_migration import LIVE_MIGRATION
from migrator.conductor.workflows.model import Commit, Outcome, Role, Step, Workflow
from migrator.conductor.workflows.volume_migration import VOLUME_MIGRATION
from migrator.rpc.facts import Location
from migrator.states import GuestState, Status
from tests.model import search as model_search
from tests.model import world
from tests.model.migration_world import MigrationWorld
from tests.model.model import NO_RETURN
from tests.model.search import search
from tests.model.trouble import KINDS
from tests.model.worlds import WORLDS, NoWorld, model_of

FULL = os.environ.get('MIGRATOR_TEST_FULL') == '1'

PRE, MIGRATE = 'pre_live_migration', 'live_migration'
POST_SOURCE = 'post_live_migration_at_source'

#: For what is found without aborts and deadlines too: fewer states.
CALM = {'aborts': False, 'deadlines': False}


def changed(table, name, **changes):
    """Give a table with one step changed, and an undo order without undos that are gone."""
    steps = tuple(dataclasses.replace(s, **changes) if s.name == name else s for s in table.steps)
    left = {s.undo.method for s in steps if s.undo}
    return dataclasses.replace(table, steps=steps, undo_order=tuple(u for u in table.undo_order if u in left))


def trusting(table):
    """Give a table that believes what the hypervisor's call returned instead of asking the hosts."""
    return dataclasses.replace(table, steps=tuple(dataclasses.replace(s, owed=False, observe='', no_return_when='') for s in table.steps))


def clearing_first():
    """The live migration, with the source cleared before the hosts have said where the guest is."""
    steps = [s for s in LIVE_MIGRATION.steps if s.name != POST_SOURCE]
    steps.insert(3, Step(POST_SOURCE, on=Role.SOURCE))
    return dataclasses.replace(LIVE_MIGRATION, steps=tuple(steps))


def keeping_locks(*arguments):
    """A core that ends a workflow without saying so to the engine, who lets the locks go."""
    action = next_action(*arguments)
    return dataclasses.replace(action, kind=Kind.WAIT) if action.kind is Kind.END else action


def never_asking_again(workflow, cursor, event, *rest):
    """A core that does not look again when an observation was lost with its conductor."""
    action = next_action(workflow, cursor, event, *rest)
    if isinstance(event, stimulus.Due) and cursor.phase is Phase.OBSERVING:
        return dataclasses.replace(action, kind=Kind.IGNORE)
    return action


def owing_nothing(*arguments):
    """A core that forgets what is left at hosts that are off."""
    return dataclasses.replace(next_action(*arguments), debts=())


def silent_sufferer(*arguments):
    """A core that never says that it needs an operator."""
    action = next_action(*arguments)
    if action.cursor.status is not Status.NEEDS_OPERATOR:
        return action
    return dataclasses.replace(action, cursor=dataclasses.replace(action.cursor, status=Status.RUNNING))


def believing(*states):
    """A core that takes it for absence when a destination does not answer, for one of these reasons."""
    def decide(workflow, cursor, event, *rest):
        if isinstance(event, stimulus.Observed) and event.destination.state in states:
            event = dataclasses.replace(event, destination=Location(GuestState.ABSENT))
        return next_action(workflow, cursor, event, *rest)
    return decide


def deaf_to_the_source(workflow, cursor, event, *rest):
    """A core that takes it for absence when the source array does not answer."""
    if isinstance(event, stimulus.Observed) and event.source.state is Said.UNREACHABLE:
        event = dataclasses.replace(event, source=Answer(Said.ABSENT))
    return next_action(workflow, cursor, event, *rest)


class Careless(MigrationWorld):
    """Drivers that check nothing before they destroy or resume."""

    def run(self, method, hv):
        """See World."""
        match method:
            case 'rollback_live_migration_at_source':
                return hv._replace(source=GuestState.RUNNING if hv.source is GuestState.PAUSED else hv.source), True
            case 'rollback_live_migration_at_destination':
                return hv._replace(destination=GuestState.ABSENT, marker=False, destination_disk='', job=''), True
            case 'post_live_migration_at_source':
                return hv._replace(source=GuestState.ABSENT, source_disk=False), True
        return super().run(method, hv)


#: One host at most is lost. And: a host that has lost its power may never come back, which no run can go on without.
ONE_AT_MOST = tuple(kind for kind in KINDS if kind != 'blackout')
WITHOUT_POWER = tuple(kind for kind in ONE_AT_MOST if kind != 'power')

#: Nobody but the outcome tells that something is wrong.
CARELESS = {'world': Careless(post_copy=False), 'judging': False, 'kinds': ONE_AT_MOST, **CALM}

#: Both hosts lose their power, which takes many steps to come back from.
BLACKOUT = {'faults': 1, 'attempts': 1, 'kinds': ('blackout',), 'world': MigrationWorld(post_copy=False), **CALM}

#: How far the search goes where two faults are too many: (what for, bounds). The others take one fault, two with MIGRATOR_TEST_FULL=1.
BOUNDS = {'live_migration': (('one fault of any kind, at one host', {'faults': 1, 'kinds': ONE_AT_MOST}),
                             ('both hosts lose their power', BLACKOUT)) if FULL else (
    ('one fault, no loss of power', {'faults': 1, 'kinds': WITHOUT_POWER}),
    ('a host loses its power', {'faults': 1, 'kinds': ('power',), **CALM}),
    ('both hosts lose their power', BLACKOUT)),
    'volume_migration': (('one fault of any kind, at one host', {'faults': 1, 'kinds': ONE_AT_MOST}),) if FULL else (
    ('messages, conductors and operations', {'faults': 1, 'kinds': ('messages', 'operations', 'conductors')}),
    ('hosts', {'faults': 1, 'kinds': ('hosts', 'power'), **CALM}))}


class EveryWorkflowTest(testscenarios.WithScenarios, testtools.TestCase):
    """Each workflow of the registry, in its world."""

    scenarios = [(f'{kind}, {name}' if name else kind, {'kind': kind, 'bounds': bounds})
                 for kind in WORKFLOWS for name, bounds in BOUNDS.get(kind, (('', {'faults': 2 if FULL else 1}),))]

    def test_every_interleaving_with_faults_ends_well(self):
        """Given the table as it is, when anything goes wrong anywhere, then every invariant holds and every run can end."""
        result = search(model_of(self.kind, **self.bounds))
        print(f'{self.kind}, within {self.bounds}: {result}')
        self.assertIsNone(result.broken)
        self.assertLessEqual({'completed', 'failed'}, set(result.ends))
        self.assertEqual('cancelled' in result.ends, WORKFLOWS[self.kind].abortable and self.bounds.get('aborts', True))
        self.assertEqual('blackout' in self.bounds.get('kinds', KINDS) and self.kind == 'live_migration',
                         f'failed{model_search.LOST}' in result.ends)
        self.assertGreater(result.visited, 10_000 if self.kind == 'live_migration' else 300)


class RegistryTest(testtools.TestCase):

    def test_no_world_without_a_workflow(self):
        self.assertEqual(set(), set(WORLDS) - set(WORKFLOWS))

    def test_a_workflow_without_a_world_is_told_how_to_get_one(self):
        error = self.assertRaises(NoWorld, model_of, 'share_migration')
        self.assertIn('name it in WORLDS in tests/model/worlds.py', str(error))


class BrokenTest(testscenarios.WithScenarios, testtools.TestCase):
    """What was broken on purpose, and the invariant that must catch it."""

    scenarios = [(name, {'kind': kind, 'invariant': invariant, 'table': table, 'options': options}) for
                 name, kind, invariant, table, options in (
        ('no undo of the preparation', 'live_migration', world.LEFTOVERS, changed(LIVE_MIGRATION, PRE, undo=None), {}),
        ('no undo of the move', 'live_migration', world.GUEST, changed(LIVE_MIGRATION, MIGRATE, undo=None), {}),
        ('the source is cleared before the proof', 'live_migration', world.PRECONDITION, clearing_first(), {}),
        ('the location is committed without proof', 'live_migration', world.RECORD,
         changed(LIVE_MIGRATION, PRE, commit=Commit.AT_DESTINATION), {}),
        ('the hypervisor is trusted', 'live_migration', NO_RETURN, trusting(LIVE_MIGRATION), {}),
        ('a post step that may fail turns round', 'live_migration', NO_RETURN, changed(LIVE_MIGRATION, POST_SOURCE, owed=False),
         {'faults': 1, **CALM}),
        ('looking without a fence', 'live_migration', world.PRECONDITION, LIVE_MIGRATION, {'fences': False}),
        ('the destination is asked first', 'live_migration', NO_RETURN, LIVE_MIGRATION, {'source_first': False}),
        ('silence is taken for absence, and the source resumed first', 'live_migration', world.COPIES,
         dataclasses.replace(LIVE_MIGRATION, undo_order=LIVE_MIGRATION.undo_order[::-1]),
         {'decide': believing(GuestState.UNREACHABLE), 'faults': 1, **CARELESS}),
        ('silence is taken for absence, and the destination cleared', 'live_migration', world.GOOD, LIVE_MIGRATION,
         {'decide': believing(GuestState.UNREACHABLE), 'faults': 1, **CARELESS}),
        ('the only copy is cleared before the proof', 'live_migration', world.GOOD, clearing_first(), CARELESS),
        ('an attestation is taken for absence', 'live_migration', NO_RETURN, LIVE_MIGRATION,
         {'decide': believing(GuestState.DEAD), 'faults': 1, 'kinds': ('power',), **CALM}),
        ('both hosts off is taken for the source alone', 'live_migration', NO_RETURN, LIVE_MIGRATION,
         {'decide': believing(GuestState.DEAD), 'faults': 1, 'kinds': ('blackout',), **CALM}),
        ('nothing is owed when both hosts are off', 'live_migration', world.LEFTOVERS, LIVE_MIGRATION,
         {'decide': owing_nothing, 'faults': 1, 'kinds': ('blackout',), **CALM}),
        ('a core that keeps locks', 'live_migration', model_search.LOCK, LIVE_MIGRATION, {'decide': keeping_locks}),
        ('a core that never asks again', 'live_migration', model_search.ENDS, LIVE_MIGRATION,
         {'decide': never_asking_again, 'faults': 1, **CALM}),
        ('a core that never needs an operator', 'live_migration', model_search.OPERATOR, LIVE_MIGRATION,
         {'decide': silent_sufferer, 'faults': 1, 'kinds': WITHOUT_POWER, 'world': MigrationWorld(post_copy=False), **CALM}),
        ('a broken post-copy that no operator hears of', 'live_migration', model_search.ENDS, LIVE_MIGRATION,
         {'decide': silent_sufferer, **CALM}),
        ('no undo of a creation', 'instance_create', world.LEFTOVERS,
         changed(changed(INSTANCE_CREATE, 'create_instance', undo=None), 'start_instance', undo=None), {'faults': 1}),
        ('no undo of a start', 'instance_create', model_search.ENDS, changed(INSTANCE_CREATE, 'start_instance', undo=None), {'faults': 1}),
        ('a removal that is told too early', 'instance_delete', world.RECORD,
         Workflow('instance_delete', steps=(Step('stop_instance', on=HERE, commit=Commit.DELETED), *INSTANCE_DELETE.steps)), {}),
        ('no undo of a copy', 'volume_migration', world.LEFTOVERS,
         changed(changed(VOLUME_MIGRATION, 'migrate_volume', undo=None), 'create_target_volume', undo=None), CALM),
        ('no undo of a take-over', 'volume_migration', world.LEFTOVERS, changed(VOLUME_MIGRATION, 'migrate_volume_target', undo=None), {}),
        ('no undo of an export', 'volume_migration', world.LEFTOVERS, changed(VOLUME_MIGRATION, 'export_volume', undo=None), {}),
        ('a copy that nobody compared', 'volume_migration', world.RECORD,
         changed(VOLUME_MIGRATION, 'copy_volume', commit=Commit.MOVED), CALM),
        ('a take-over that is taken for whole', 'volume_migration', world.RECORD, changed(
            VOLUME_MIGRATION, 'migrate_volume_target', outcomes=(Outcome('taken_over', Commit.MOVED),)), CALM),
        ('a take-over that is called a success', 'volume_migration', world.RECORD, changed(
            changed(VOLUME_MIGRATION, 'complete_migration_target', when='taken_over', vital=False), 'migrate_volume_target',
            outcomes=(Outcome('taken_over_at_once', Commit.MOVED), Outcome('taken_over', Commit.SUCCESS))), CALM),
        ('a take-over that is left unfinished', 'volume_migration', world.PRECONDITION,
         changed(VOLUME_MIGRATION, 'complete_migration_target', vital=False, owed=True), CALM),
        ('a take-over that may turn round', 'volume_migration', NO_RETURN,
         changed(VOLUME_MIGRATION, 'complete_migration_target', vital=False), CALM),
        ('a source driver that is not doubted', 'volume_migration', NO_RETURN,
         changed(VOLUME_MIGRATION, 'migrate_volume', doubt='', no_return_when=''), CALM),
        ('an abort that undoes what the source has moved', 'volume_migration', NO_RETURN,
         changed(VOLUME_MIGRATION, 'migrate_volume', no_return_when=''), {}),
        ('a host copy after all', 'volume_migration', NO_RETURN, changed(VOLUME_MIGRATION, 'create_target_volume', when=''), CALM),
        ('silence of the source array is taken for absence', 'volume_migration', world.RECORD, VOLUME_MIGRATION,
         {'decide': deaf_to_the_source, 'faults': 1, 'kinds': ('hosts',), **CALM}),
        ('a core that never needs an operator for volumes', 'volume_migration', model_search.OPERATOR, VOLUME_MIGRATION,
         {'decide': silent_sufferer, 'faults': 1, 'kinds': ('hosts',), **CALM}),
        ('a core that keeps the locks of a volume', 'volume_migration', model_search.LOCK, VOLUME_MIGRATION,
         {'decide': keeping_locks, **CALM}),
    )]

    def test_it_is_caught(self):
        result = search(model_of(self.kind, self.table, **{'faults': 0, **self.options}))
        self.assertIsNotNone(result.broken, f'nothing was found: {result}')
        name, how, way = result.broken
        self.assertEqual(self.invariant, name, how)
        self.assertNotEqual([], way, how)
