"""Making, starting, stopping and deleting simulated guests; functions as in `steps`."""
import json
import re

from migrator import exceptions
from migrator.compute.drivers.fake import guests, jobs, steps
from migrator.rpc import facts
from migrator.states import GuestState, PauseReason

#: MiB a second that a guest dirties unless its kernel command line says otherwise, as `dirty_mib=200`.
DIRTY_MIB = 16
DIRTY_WORD = re.compile(r'(?:^|\s)dirty_mib=([0-9]{1,7})(?:\s|\Z)')


def create_instance(db, host, spec, default_directory, now):
    """Make the disks and the guest, off."""
    text, row = json.dumps(facts.to_wire(spec), sort_keys=True), guests.get(db, host, spec.uuid)
    if row is not None:
        if row['spec'] != text:
            raise exceptions.DestinationNotEmpty(f'{host} has another guest {spec.uuid} already, which is {row["state"]}')
        return {}, False
    if db.execute('SELECT 1 FROM guest WHERE host = ? AND name = ?', (host, spec.name)).fetchone():
        raise exceptions.DriverError(f'{host} has a guest named {spec.name} already')
    strangers = [f['name'] for f in guests.files_of(db, host, spec.uuid)]
    if strangers:
        raise exceptions.DestinationNotEmpty(f'{host} has files of {spec.uuid} already: {", ".join(strangers)}')
    disks = tuple(_disk(db, host, spec.uuid, disk, default_directory) for disk in spec.disks)
    for disk in guests.local(disks):
        guests.make_file(db, host, spec.uuid, disk, guests.MADE, complete=1)
    add(db, host, spec.uuid, spec.name, spec.memory_mib, spec.vcpus, disks, dirty_mib=_dirty_mib(spec), managed=1, spec=text)
    return {}, True


def add(db, host, uuid, name, memory_mib, vcpus, disks, dirty_mib=DIRTY_MIB, managed=0, spec=''):
    """Add a guest that is off; its disks' files are the caller's."""
    text = guests.disks_text(disks)
    db.execute('INSERT INTO guest (host, uuid, name, state, memory_mib, vcpus, disks, managed, spec, dirty_rate) '
               "VALUES (?, ?, ?, 'off', ?, ?, ?, ?, ?, ?)",
               (host, uuid, name, memory_mib, vcpus, text, managed, spec, dirty_mib * guests.MIB))
    db.execute('INSERT OR IGNORE INTO truth (uuid, writes, disks) VALUES (?, 0, ?)', (uuid, text))


def _dirty_mib(spec):
    word = DIRTY_WORD.search(spec.cmdline)
    return int(word.group(1)) if word else DIRTY_MIB


def _disk(db, host, uuid, new, default_directory):
    """The facts.Disk that a NewDisk becomes."""
    if new.uri:
        return facts.Disk(target=new.target, kind='network', format='raw', size=new.size, path=new.uri, serial=new.serial)
    directory = new.directory or default_directory
    if guests.identity(db, host, directory) is None:
        raise exceptions.InvalidRequest(f'{directory} is no storage directory of {host}')
    if new.backing and not guests.image_found(db, host, new.backing):
        raise exceptions.InvalidRequest(f'no image {new.backing} at {host}')
    return facts.Disk(target=new.target, format=new.format, size=new.size, directory=directory,
                      path=f'{directory}/{uuid}/{new.target}.{new.format}', backing=new.backing,
                      backing_format='raw' if new.backing else '', cache='none', serial=new.serial)


def start_instance(db, host, uuid, now):
    """Run a guest that is off; one that is active already, paused included, is left alone."""
    row = _here(db, host, uuid)
    if row['state'] == GuestState.INCOMING or row['reason'] == PauseReason.MIGRATION:
        raise exceptions.PreconditionFailed(f'{uuid} is {row["state"]} at {host}, in a migration')
    if row['state'] != GuestState.OFF:
        return {}, False
    for disk in guests.local(guests.disks_of(row['disks'])):
        if guests.file_of(db, host, uuid, disk) is None:
            raise exceptions.DriverError(f'cannot access {disk.path} at {host}: it does not exist')
    if steps.memory_free(db, host) < row['memory_mib']:
        raise exceptions.DriverError(f'{host} has no {row["memory_mib"]} MiB of memory for {uuid}')
    guests.set_state(db, host, uuid, GuestState.RUNNING, PauseReason.NONE, now)
    return {}, True


def check_stop(db, host, uuid):
    """Whether the guest is active, and does not listen when asked to shut down: its row. Raises what stop_instance raises."""
    row = _here(db, host, uuid)
    if jobs.active(db, uuid) is not None or row['state'] == GuestState.INCOMING:
        raise exceptions.PreconditionFailed(f'a migration job of {uuid} is active')
    return row


def stop_instance(db, host, uuid, now):
    """Turn the guest off."""
    if check_stop(db, host, uuid)['state'] == GuestState.OFF:
        return {}, False
    guests.set_state(db, host, uuid, GuestState.OFF, PauseReason.NONE, now)
    return {}, True


def delete_instance(db, host, uuid, now):
    """Remove a guest that is off and what create_instance made for it."""
    row, changed = guests.get(db, host, uuid), False
    if row is not None:
        if row['state'] != GuestState.OFF:
            raise exceptions.PreconditionFailed(f'{uuid} is {row["state"]} at {host}')
        changed = db.execute('DELETE FROM guest WHERE host = ? AND uuid = ?', (host, uuid)).rowcount > 0
        if not db.execute('SELECT 1 FROM guest WHERE uuid = ?', (uuid,)).fetchone():
            db.execute('DELETE FROM truth WHERE uuid = ?', (uuid,))  # deleted on purpose: nothing is lost with its disks
    for file in guests.files_of(db, host, uuid):
        if file['owner'] == guests.MADE and not _in_use(db, file):
            guests.remove_file(db, file, now)
            changed = True
    return {}, changed


def _in_use(db, file):
    """True when a guest of that uuid somewhere has the storage that the file lies in."""
    return db.execute('SELECT 1 FROM guest JOIN storage ON storage.host = guest.host WHERE guest.uuid = ? AND storage.identity = ?',
                      (file['uuid'], file['identity'])).fetchone() is not None


def _here(db, host, uuid):
    row = guests.get(db, host, uuid)
    if row is None:
        raise exceptions.InstanceNotFound(f'no guest {uuid} at {host}')
    return row
