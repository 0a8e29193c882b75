"""Migration of an available volume from one array to another (seed 001: the source driver, else the target driver, else a host copy).

Departures from the seed, argued in doc/source/design/0003-volumes.rst: the new host is written in the same transaction as the status; a
take-over that cannot be completed keeps both LUNs and the target in charge; and no driver deletes the source, the last step does.

Until a commit says otherwise the volume is the source's LUN: nobody was told of the other one, so whatever goes wrong is undone at the
destination, first, and the source has lost nothing. From that commit on it is the destination's LUN, and nothing there is ever undone.
"""
from migrator.conductor.workflows.model import Commit, Mode, Outcome, Role, Step, Undo, Workflow
from migrator.states import AgentKind, Status

SOURCE, DESTINATION, VOLUME = Role.SOURCE, Role.DESTINATION, AgentKind.VOLUME

REMOVE_COPY = Undo('delete_target_volume', on=DESTINATION, agent=VOLUME, doing='what was made at the destination is being removed')

VOLUME_MIGRATION = Workflow('volume_migration', abortable=True, steps=(
    Step('check_can_migrate_volume_target', on=DESTINATION, agent=VOLUME, mode=Mode.CALL, status=Status.CHECKING),
    Step('check_can_migrate_volume_source', on=SOURCE, agent=VOLUME, mode=Mode.CALL, status=Status.CHECKING),
    Step('migrate_volume', on=SOURCE, agent=VOLUME, when='drivers_may_move', repeat=True, doubt='locate_volume', cancel='cancel_volume_job',
         doing='the source array is asked to move the volume', declined='the source array does not move it by itself',
         no_return_when='the source array has moved it',
         outcomes=(Outcome('moved_by_source', Commit.MOVED),), commit=Commit.MOVED, undo=REMOVE_COPY),
    Step('export_volume', on=SOURCE, agent=VOLUME, when='not_moved', status=Status.PREPARING, repeat=True,
         doing='the source is made reachable for the destination',
         undo=Undo('unexport_volume', on=SOURCE, agent=VOLUME, doing='the export of the source is being ended')),
    Step('migrate_volume_target', on=DESTINATION, agent=VOLUME, when='drivers_may_move', repeat=True, doubt='locate_volume',
         cancel='cancel_volume_job',
         doing='the target array is asked to take the volume over', declined='the target array does not take it over',
         outcomes=(Outcome('taken_over_at_once', Commit.MOVED), Outcome('taken_over', Commit.ATTACHABLE)), commit=Commit.MOVED,
         undo=Undo('cancel_migration_target', on=DESTINATION, agent=VOLUME, doing='the take-over is being undone')),
    Step('complete_migration_target', on=DESTINATION, agent=VOLUME, when='still_arriving', status=Status.FINISHING, vital=True,
         commit=Commit.SUCCESS, doing='the data follows; the volume may be used'),
    Step('create_target_volume', on=DESTINATION, agent=VOLUME, when='not_moved', status=Status.PREPARING, repeat=True,
         doing='the copy is being made at the destination', undo=REMOVE_COPY),
    Step('copy_volume', on=DESTINATION, agent=VOLUME, when='not_moved', repeat=True, keeps=True, cancel='cancel_volume_job',
         doing='the data is being copied'),
    Step('verify_volume', on=DESTINATION, agent=VOLUME, when='not_moved', repeat=True, cancel='cancel_volume_job',
         commit=Commit.MOVED, doing='the copy is being compared with the source'),
    Step('delete_source_volume', on=SOURCE, agent=VOLUME, status=Status.FINISHING, owed=True,
         doing='what the volume has left is being removed')),
    # What reads from the source ends before the export that it reads from.
    undo_order=('cancel_migration_target', 'delete_target_volume', 'unexport_volume'),
    done='the volume is at the destination, and nothing of it is left at the source')
