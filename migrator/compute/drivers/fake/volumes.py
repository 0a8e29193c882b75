"""Volumes of simulated guests, and exports that fail and come back; functions as in `steps`."""
import string

from migrator import exceptions
from migrator.compute.drivers.fake import guests, jobs
from migrator.rpc import facts
from migrator.states import GuestState, PauseReason

#: How the guest's disks are named in their order, as libvirt names those on virtio.
TARGETS = tuple(f'vd{letter}' for letter in string.ascii_lowercase)


def attach_volume(db, host, attachment, now):
    """Give the guest a network disk."""
    row = _quiet(db, host, attachment.instance_uuid)
    disks, uri = guests.disks_of(row['disks']), attachment.connection.uri
    present = _of_volume(disks, attachment.volume_id)
    if present is not None:
        if (present.path, present.readonly) != (uri, attachment.read_only):
            raise exceptions.PreconditionFailed(f'the volume is {present.target} of the guest by {present.path}, or in another mode')
        return {'target': present.target}, False
    taken = {d.target for d in disks}
    if attachment.target in taken:
        raise exceptions.PreconditionFailed(f'the guest has another disk {attachment.target}')
    if not answers(db, uri):
        raise exceptions.DriverError(f'the export {uri} does not answer')
    target = attachment.target or next(name for name in TARGETS if name not in taken)
    disk = facts.Disk(target=target, kind='network', format='raw', size=attachment.connection.size, path=uri, cache='none',
                      readonly=attachment.read_only, serial=attachment.serial)
    _set_disks(db, row, (*disks, disk))
    return {'target': target}, True


def detach_volume(db, host, attachment, now):
    """Take the volume's disk from the guest; one that does not answer keeps it."""
    row = _quiet(db, host, attachment.instance_uuid)
    disks = guests.disks_of(row['disks'])
    present = _of_volume(disks, attachment.volume_id)
    if present is None:
        return {}, False
    if keeps(row):
        raise exceptions.DeviceInUse(f'the guest does not let go of {present.target}')
    _set_disks(db, row, tuple(d for d in disks if d != present))
    return {}, True


def keeps(row):
    """Whether a guest would not answer a request to let go of a disk."""
    return row['state'] == GuestState.PAUSED or (row['state'] == GuestState.RUNNING and bool(row['deaf']))


def waits(db, host, attachment):
    """Whether detach_volume would find a guest that keeps the volume. Raises what detach_volume raises."""
    row = _quiet(db, host, attachment.instance_uuid)
    return keeps(row) and _of_volume(guests.disks_of(row['disks']), attachment.volume_id) is not None


def answers(db, uri):
    """Whether an export answers."""
    return db.execute('SELECT 1 FROM dead_export WHERE uri = ?', (uri,)).fetchone() is None


def set_answers(db, uri, whether, now):
    """Let an export fail, which pauses the running guests that have it, or answer again."""
    if whether:
        db.execute('DELETE FROM dead_export WHERE uri = ?', (uri,))
        return
    db.execute('INSERT OR IGNORE INTO dead_export (uri) VALUES (?)', (uri,))
    for row in db.execute("SELECT * FROM guest WHERE state = 'running'").fetchall():
        if any(d.path == uri for d in guests.disks_of(row['disks'])):
            guests.set_state(db, row['host'], row['uuid'], GuestState.PAUSED, PauseReason.IO_ERROR, now)


def stalled(db, host):
    """Rows of the guests that a volume's I/O error has paused and that do not migrate."""
    found = db.execute("SELECT * FROM guest WHERE host = ? AND state = 'paused' AND reason = ?", (host, PauseReason.IO_ERROR)).fetchall()
    return [row for row in found if jobs.active(db, row['uuid']) is None]


def resume_stalled(db, host, uuid, now):
    """Let a guest go on whose exports answer."""
    if guests.get(db, host, uuid) is None:
        raise exceptions.InstanceNotFound(f'no guest {uuid} at {host}')
    row = next((row for row in stalled(db, host) if row['uuid'] == uuid), None)
    if row is None:
        return '', False
    dead = [d.path for d in guests.disks_of(row['disks']) if d.kind == 'network' and not answers(db, d.path)]
    if dead:
        return f'the export {dead[0]} does not answer', False
    guests.set_state(db, host, uuid, GuestState.RUNNING, PauseReason.NONE, now)
    return '', True


def _of_volume(disks, volume_id):
    return next((d for d in disks if d.kind == 'network' and d.serial == volume_id), None)


def _quiet(db, host, uuid):
    """The row of a guest that no migration has in its hands."""
    row = guests.get(db, host, uuid)
    if row is None:
        raise exceptions.InstanceNotFound(f'no guest {uuid} at {host}')
    if jobs.active(db, uuid) is not None or row['state'] == GuestState.INCOMING or row['reason'] == PauseReason.MIGRATION:
        raise exceptions.PreconditionFailed(f'{uuid} is {row["state"]} at {host}, in a migration')
    return row


def _set_disks(db, row, disks):
    db.execute('UPDATE guest SET disks = ? WHERE host = ? AND uuid = ?', (guests.disks_text(disks), row['host'], row['uuid']))
