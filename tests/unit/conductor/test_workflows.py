"""The workflow tables: sound, in step with the RPC contract, and refused when they are not."""
from migrator.conductor.workflows import WORKFLOWS
from migrator.conductor.workflows.model import Commit, Mode, Outcome, Role, Step, Undo, Workflow
from migrator.rpc import contract
from migrator.states import AgentKind, Status
from tests import base

#: The methods of each kind of agent.
CONTRACT = {AgentKind.COMPUTE: contract.COMPUTE, AgentKind.VOLUME: contract.VOLUME}

SEED = ('check_can_live_migrate_destination', 'check_can_live_migrate_source', 'pre_live_migration', 'live_migration',
        'post_live_migration_at_destination', 'post_live_migration_at_source')


class TablesTest(base.TestCase):

    def each_step(self):
        return [(workflow, step) for workflow in WORKFLOWS.values() for step in workflow.steps]

    def test_the_registry_is_by_kind(self):
        self.assertEqual({w.kind: w for w in WORKFLOWS.values()}, WORKFLOWS)
        self.assertEqual({'live_migration', 'instance_create', 'instance_define', 'instance_start', 'instance_stop', 'instance_delete',
                          'volume_migration', 'volume_create', 'volume_delete', 'volume_extend', 'volume_attach', 'volume_detach',
                          'volume_cut_off'},
                         set(WORKFLOWS))

    def test_the_live_migration_has_the_methods_of_the_seed_in_its_order(self):
        live = WORKFLOWS['live_migration']
        self.assertEqual(SEED, tuple(s.name for s in live.steps))
        self.assertEqual({'rollback_live_migration_at_destination', 'rollback_live_migration_at_source'}, set(live.undo_order))

    def test_every_method_is_in_the_contract_and_issued_as_it_says(self):
        for workflow, step in self.each_step():
            methods = CONTRACT[step.agent]
            self.assertEqual(step.mode.value, methods[step.name].kind.value, (workflow.kind, step.name))
            if step.undo:
                self.assertIs(contract.Kind.SPAWN, CONTRACT[step.undo.agent][step.undo.method].kind)
            for question in (step.asks, step.cancel):
                if question:
                    self.assertIs(contract.Kind.CALL, methods[question].kind, (workflow.kind, question))

    def test_the_migration_of_a_volume_has_the_steps_of_the_seed_in_its_order(self):
        names = [s.name for s in WORKFLOWS['volume_migration'].operations]
        seed = ['migrate_volume', 'migrate_volume_target', 'complete_migration_target']
        self.assertEqual(seed, [name for name in names if name in seed])
        self.assertEqual('delete_source_volume', names[-1], 'the source goes last')
        self.assertEqual({AgentKind.VOLUME}, {s.agent for s in WORKFLOWS['volume_migration'].steps})

    def test_where_each_step_is_done(self):
        where = {s.name: s.on for s in WORKFLOWS['live_migration'].steps}
        where.update({s.undo.method: s.undo.on for s in WORKFLOWS['live_migration'].steps if s.undo})
        for name, role in where.items():
            for word in ('source', 'destination'):
                if name.endswith(word):
                    self.assertEqual(word, role.value, name)
        self.assertEqual((Role.DESTINATION, Role.SOURCE), (where['pre_live_migration'], where['live_migration']))

    def test_a_step_that_may_leave_traces_can_be_undone_or_is_owed_or_is_all_there_is(self):
        """What is copied and compared leaves its traces in the copy, whose making can be undone."""
        for workflow, step in self.each_step():
            if step.mode is Mode.SPAWN and len(workflow.operations) > 1 and step is not workflow.operations[-1]:
                in_the_copy = step.name in ('copy_volume', 'verify_volume')
                once_more = workflow.kind == 'volume_detach'        # what failed half-way is asked for again
                self.assertTrue(step.undo or step.owed or step.vital or in_the_copy or once_more, (workflow.kind, step.name))

    def test_nothing_owed_comes_before_the_point_of_no_return(self):
        for workflow in WORKFLOWS.values():
            passed = False
            for step in workflow.steps:
                self.assertTrue(passed or not (step.owed or step.vital), (workflow.kind, step.name))
                passed = passed or any(commit.final for commit in step.commits)

    def test_where_a_guest_is_is_observed(self):
        for workflow, step in self.each_step():
            self.assertTrue(step.no_return_when or not step.observe, (workflow.kind, step.name))
            self.assertEqual(bool(step.observe), step.commit is Commit.AT_DESTINATION)

    def test_no_step_has_a_terminal_status(self):
        for workflow, step in self.each_step():
            self.assertFalse(step.status.terminal, (workflow.kind, step.name))


class LookUpTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.live = WORKFLOWS['live_migration']

    def test_a_step_by_its_name_or_by_its_undo(self):
        self.assertIs(self.live.step('pre_live_migration'), self.live.step('rollback_live_migration_at_destination'))
        self.assertRaisesRegex(KeyError, 'live_migration has no step nonsense', self.live.step, 'nonsense')

    def test_where_and_by_which_kind_of_agent_a_method_is_done(self):
        self.assertEqual(AgentKind.COMPUTE, self.live.agent(Role.SOURCE))
        self.assertEqual('pre_live_migration', self.live.line('pre_live_migration').name)
        self.assertIs(self.live.step('pre_live_migration').undo, self.live.line('rollback_live_migration_at_destination'))
        mixed = Workflow('x', steps=(Step('export_attachment', on=Role.SOURCE, agent=AgentKind.VOLUME),
                                     Step('start_instance', on=Role.DESTINATION)))
        self.assertEqual((AgentKind.VOLUME, AgentKind.COMPUTE), (mixed.agent(Role.SOURCE), mixed.agent(Role.DESTINATION)))

    def test_checks_and_operations(self):
        self.assertEqual(SEED[:2], tuple(s.name for s in self.live.checks))
        self.assertEqual(SEED[2:], tuple(s.name for s in self.live.operations))

    def test_what_comes_after(self):
        self.assertEqual(SEED[3:], tuple(s.name for s in self.live.after('pre_live_migration')))
        self.assertEqual(self.live.operations, self.live.after(''))
        self.assertEqual((), self.live.after(SEED[-1]))


class BrokenTablesTest(base.TestCase):

    step = Step('create_instance', on=Role.SOURCE, undo=Undo('delete_instance', on=Role.SOURCE))

    def test_an_undo_that_is_not_in_the_order(self):
        self.assertRaisesRegex(ValueError, 'undo_order', Workflow, 'x', steps=(self.step,))

    def test_an_order_with_an_undo_that_is_not_there(self):
        self.assertRaisesRegex(ValueError, 'undo_order', Workflow, 'x', steps=(self.step,), undo_order=('delete_instance', 'stop_instance'))

    def test_an_undo_named_twice(self):
        self.assertRaisesRegex(ValueError, 'undo_order', Workflow, 'x', steps=(self.step,), undo_order=('delete_instance',) * 2)

    def test_a_check_after_an_operation(self):
        check = Step('check_can_live_migrate_source', on=Role.SOURCE, mode=Mode.CALL, status=Status.CHECKING)
        self.assertRaisesRegex(ValueError, 'checks come first', Workflow, 'x', steps=(self.step, check), undo_order=('delete_instance',))

    def test_two_steps_of_one_name(self):
        self.assertRaisesRegex(ValueError, 'twice', Workflow, 'x', steps=(self.step, Step('create_instance', on=Role.SOURCE)),
                               undo_order=('delete_instance',))

    def test_a_role_of_two_kinds(self):
        self.assertRaisesRegex(ValueError, 'source is one agent', Workflow, 'x', steps=(
            Step('export_volume', on=Role.SOURCE, agent=AgentKind.VOLUME), Step('start_instance', on=Role.SOURCE)))

    def test_nothing_to_do(self):
        self.assertRaisesRegex(ValueError, 'no operation', Workflow, 'x', steps=())

    def test_a_debt_before_the_point_of_no_return(self):
        self.assertRaisesRegex(ValueError, 'point of no return', Workflow, 'x', steps=(Step('stop_instance', on=Role.SOURCE, owed=True),))

    def test_a_condition_that_does_not_exist(self):
        self.assertRaisesRegex(ValueError, r"do not exist: \['full_moon'\]", Workflow, 'x', steps=(
            Step('stop_instance', on=Role.SOURCE, when='full_moon'),))

    def test_an_outcome_without_a_word_for_declining(self):
        self.assertRaisesRegex(ValueError, 'declined', Workflow, 'x', steps=(
            Step('migrate_volume', on=Role.SOURCE, outcomes=(Outcome('moved_by_source', Commit.MOVED),)),))

    def test_two_undos_of_one_name(self):
        other = Step('start_instance', on=Role.SOURCE, undo=Undo('delete_instance', on=Role.DESTINATION))
        self.assertRaisesRegex(ValueError, 'undo_order', Workflow, 'x', steps=(self.step, other), undo_order=('delete_instance',))

    def test_one_undo_of_two_steps(self):
        other = Step('start_instance', on=Role.SOURCE, undo=self.step.undo)
        both = Workflow('x', steps=(self.step, other), undo_order=('delete_instance',))
        self.assertEqual((self.step, other), both.undone_by('delete_instance'))

    def test_a_point_of_no_return_that_nobody_looks_for(self):
        self.assertRaisesRegex(ValueError, 'observe', Workflow, 'x', steps=(
            Step('live_migration', on=Role.SOURCE, no_return_when='it runs there'),))
