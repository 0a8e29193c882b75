"""What must hold, whatever happens: in every state, at every end, and for everything that is issued."""
from migrator.states import GuestState as G
from migrator.states import Status
from tests.model.world import Broken


def always(state):
    """Raise Broken unless at most one copy runs and at least one good copy of the disk exists."""
    hv = state.hypervisors
    if hv.source is G.RUNNING and hv.destination is G.RUNNING:
        raise Broken('two copies run')
    good = hv.destination_disk == 'complete' if hv.moved else hv.source_disk
    if not good:
        raise Broken('no good copy of the disk is left')


def at_end(state):
    """Raise Broken unless an ended migration has left nothing that no debt names, and its record is true."""
    hv, status = state.hypervisors, state.cursor.status
    if not status.terminal:
        return
    if status is Status.COMPLETED and not hv.moved:
        raise Broken('completed, but the guest never ran at the destination')
    if status is not Status.COMPLETED and hv.moved:
        raise Broken(f'{status.value}, but the guest runs at the destination')
    if status is not Status.COMPLETED and hv.source is G.PAUSED:
        raise Broken(f'{status.value}, but the guest is left paused')
    if not hv.moved and (hv.marker or hv.destination_disk or hv.destination is not G.ABSENT) \
            and 'rollback_live_migration_at_destination' not in state.debts:
        raise Broken('something is left at the destination that no debt names')
    if hv.moved and (hv.source is not G.ABSENT or hv.source_disk) and 'post_live_migration_at_source' not in state.debts:
        raise Broken('something is left at the source that no debt names')
    if hv.job:
        raise Broken('the migration has ended, its job has not')


def on_issue(state, method, undo):
    """Raise Broken for an undo after the point of no return."""
    if undo and state.cursor.no_return:
        raise Broken(f'{method} is issued after the point of no return')
