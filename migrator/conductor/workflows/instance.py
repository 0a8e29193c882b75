"""Work on one guest at one host. Short, but under the same locks, journal and recovery as a migration."""
from migrator.conductor.workflows.model import Commit, Role, Step, Undo, Workflow
from migrator.states import Status

HERE = Role.SOURCE

INSTANCE_CREATE = Workflow('instance_create', steps=(
    Step('create_instance', on=HERE, status=Status.PREPARING, repeat=True, commit=Commit.CREATED, doing='the guest is being made',
         undo=Undo('delete_instance', on=HERE, commit=Commit.DELETED, doing='what was made is being removed')),
    Step('start_instance', on=HERE, status=Status.RUNNING, repeat=True, commit=Commit.RUNNING, doing='the guest is being started',
         undo=Undo('stop_instance', on=HERE, commit=Commit.STOPPED, doing='the guest is being stopped'))),
    # A start whose end was not heard of may have taken effect, and no guest is removed while it runs.
    undo_order=('stop_instance', 'delete_instance'), done='the guest is made and runs')

INSTANCE_DEFINE = Workflow('instance_define', steps=INSTANCE_CREATE.steps[:1], undo_order=('delete_instance',),
                           done='the guest is made, not started')

INSTANCE_START = Workflow('instance_start', steps=(
    Step('start_instance', on=HERE, repeat=True, commit=Commit.RUNNING, doing='the guest is being started'),), done='the guest runs')

INSTANCE_STOP = Workflow('instance_stop', steps=(
    Step('stop_instance', on=HERE, repeat=True, commit=Commit.STOPPED, doing='the guest is being stopped'),), done='the guest is off')

INSTANCE_DELETE = Workflow('instance_delete', steps=(
    Step('delete_instance', on=HERE, repeat=True, commit=Commit.DELETED, doing='the guest is being removed'),), done='the guest is gone')
