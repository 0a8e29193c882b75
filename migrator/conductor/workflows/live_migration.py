"""Live migration of a running guest (seed 000: the eight methods, issued by the conductor to both hosts).

Two departures from the seed, both argued in doc/source/architecture.rst: the location is committed together with the proof and
before either post step, and the posts follow each other, destination first, each retried until it is done or named as a debt.
"""
from migrator.conductor.workflows.model import Commit, Mode, Role, Step, Undo, Workflow
from migrator.states import Status

SOURCE, DESTINATION = Role.SOURCE, Role.DESTINATION

LIVE_MIGRATION = Workflow('live_migration', abortable=True, steps=(
    Step('check_can_live_migrate_destination', on=DESTINATION, mode=Mode.CALL, status=Status.CHECKING),
    Step('check_can_live_migrate_source', on=SOURCE, mode=Mode.CALL, status=Status.CHECKING),
    Step('pre_live_migration', on=DESTINATION, status=Status.PREPARING, repeat=True,
         doing='the destination is being prepared',
         undo=Undo('rollback_live_migration_at_destination', on=DESTINATION, doing='the destination is being cleared')),
    Step('live_migration', on=SOURCE, status=Status.RUNNING, doing='the guest is being moved',
         undo=Undo('rollback_live_migration_at_source', on=SOURCE, vital=True, doing='the guest is to go on at the source'),
         cancel='abort_live_migration', observe='locate_instance',
         no_return_when='the guest runs at the destination, or post-copy has started',
         commit=Commit.AT_DESTINATION),
    Step('post_live_migration_at_destination', on=DESTINATION, status=Status.FINISHING, owed=True,
         doing='the guest is made permanent at the destination'),
    Step('post_live_migration_at_source', on=SOURCE, status=Status.FINISHING, owed=True,
         doing='the source is being cleared')),
    # The copy that must never start is removed before the original is resumed, so that at no moment two could run.
    undo_order=('rollback_live_migration_at_destination', 'rollback_live_migration_at_source'),
    done='the guest runs at the destination, and the source is cleared')
