"""Physics of simulated guests and their disks: rows of `guest`, `file` and `truth`, within a transaction of the caller.

A running guest writes to its disks all the time; `writes` counts that. When it stops running, the count goes into its files and
into `truth`, which is what the guest's owner believes to be stored. A copy is good while it holds as much as the truth. Whatever
breaks the promise of the project - a second running copy, a stale copy started, the last good copy destroyed - is recorded in
`violation` at the moment that it happens, whoever did it, so that no later step can hide it.
"""
import functools
import json
import os

from migrator.rpc import facts
from migrator.states import GuestState, PauseReason

#: How often a second a running guest writes to its disks.
WRITES_PER_SECOND = 10
MIB = 1 << 20
#: Markers of files: made by create_instance, belonging to a guest that was found, or made by a migration (followed by its id).
MADE, FOUND, BY_MIGRATION = 'instance', 'found', 'migration:'


@functools.lru_cache(maxsize=8192)
def disks_of(text):
    """Read a row's `disks` column: a tuple of facts.Disk."""
    return tuple(facts.from_wire(facts.Disk, item) for item in json.loads(text))


def disks_text(disks):
    """Write a `disks` column."""
    return json.dumps(facts.to_wire(disks))


def local(disks):
    """The disks whose files the guest writes to."""
    return [d for d in disks if d.kind == 'file' and not d.readonly]


def get(db, host, uuid):
    """The guest's row at a host, None if the host does not know it."""
    return db.execute('SELECT * FROM guest WHERE host = ? AND uuid = ?', (host, uuid)).fetchone()


def identity(db, host, directory):
    """Identity of a storage directory of a host; None if it has no such directory."""
    row = db.execute('SELECT identity FROM storage WHERE host = ? AND directory = ?', (host, directory)).fetchone()
    return row['identity'] if row else None


def file_of(db, host, uuid, disk):
    """The row of a disk's file as one host sees it, None if it is not there."""
    return db.execute('SELECT * FROM file WHERE identity = ? AND uuid = ? AND name = ?',
                      (identity(db, host, disk.directory), uuid, os.path.basename(disk.path))).fetchone()


def files_of(db, host, uuid):
    """All rows of files of one guest that a host sees, foreign ones included."""
    return db.execute('SELECT file.*, storage.directory FROM file JOIN storage ON storage.identity = file.identity '
                      'WHERE storage.host = ? AND file.uuid = ? ORDER BY file.identity, file.name', (host, uuid)).fetchall()


def make_file(db, host, uuid, disk, owner, complete):
    """Make an empty file for a disk at a host."""
    where = (identity(db, host, disk.directory), uuid, os.path.basename(disk.path))
    db.execute('INSERT INTO file (identity, uuid, name, owner, format, size, backing, complete) VALUES (?, ?, ?, ?, ?, ?, ?, ?)',
               (*where, owner, disk.format, disk.size, disk.backing, complete))


def image_found(db, host, path):
    """True when a backing image lies at `path` on a host."""
    for row in db.execute('SELECT directory, identity FROM storage WHERE host = ?', (host,)).fetchall():
        if path.startswith(row['directory'] + '/') and db.execute(
                "SELECT 1 FROM file WHERE identity = ? AND uuid = '' AND name = ?",
                (row['identity'], path[len(row['directory']) + 1:])).fetchone():
            return True
    return False


def writes_at(row, now):
    """How much the guest has written by `now`."""
    return row['writes'] + int((now - row['since']) * WRITES_PER_SECOND) if row['since'] is not None else row['writes']


def set_state(db, host, uuid, state, reason=PauseReason.NONE, now=0.0):
    """Bring a guest into a state; what it wrote is on its disks when it stops running, and counts on from them when it starts."""
    row = get(db, host, uuid)
    was, writes, since = row['state'] == GuestState.RUNNING, writes_at(row, now), None
    if was and state != GuestState.RUNNING:
        _flush(db, row, writes)
    elif not was and state == GuestState.RUNNING:
        writes = _begin(db, row, now)
    if state == GuestState.RUNNING:
        since = now
    db.execute('UPDATE guest SET state = ?, reason = ?, writes = ?, since = ? WHERE host = ? AND uuid = ?',
               (str(state), str(reason), writes, since, host, uuid))


def _flush(db, row, writes):
    for disk in local(disks_of(row['disks'])):
        db.execute('UPDATE file SET content = max(content, ?) WHERE identity = ? AND uuid = ? AND name = ?',
                   (writes, identity(db, row['host'], disk.directory), row['uuid'], os.path.basename(disk.path)))
    db.execute('INSERT INTO truth (uuid, writes, disks) VALUES (?, ?, ?) '
               'ON CONFLICT (uuid) DO UPDATE SET writes = max(writes, excluded.writes)', (row['uuid'], writes, row['disks']))


def _begin(db, row, now):
    """A guest starts to run: returns what its disks hold, and records when that is not all that was ever written."""
    others = [r['host'] for r in db.execute("SELECT host FROM guest WHERE uuid = ? AND state = 'running' AND host != ?",
                                            (row['uuid'], row['host']))]
    if others:
        violate(db, row['uuid'], f'started at {row["host"]} while it runs at {", ".join(others)}', now)
    db.execute('INSERT OR IGNORE INTO truth (uuid, writes, disks) VALUES (?, 0, ?)', (row['uuid'], row['disks']))
    truth = db.execute('SELECT writes FROM truth WHERE uuid = ?', (row['uuid'],)).fetchone()['writes']
    contents = [truth]
    for disk in local(disks_of(row['disks'])):
        file = file_of(db, row['host'], row['uuid'], disk)
        contents.append(file['content'] if file and file['complete'] else -1)
    if min(contents) < truth:
        violate(db, row['uuid'], f'started at {row["host"]} from a copy that has {min(contents)} of {truth} writes', now)
    return max(0, min(contents))


def complete_copy(db, job, targets):
    """The destination's files of `targets` now hold what the source's hold."""
    row = get(db, job['source'], job['uuid'])
    for disk in local(disks_of(row['disks'])):
        source = file_of(db, job['source'], job['uuid'], disk)
        if disk.target in targets and source is not None:
            db.execute('UPDATE file SET content = ?, stamp = ?, complete = 1 WHERE identity = ? AND uuid = ? AND name = ?',
                       (source['content'], source['stamp'], identity(db, job['destination'], disk.directory), job['uuid'], source['name']))


def remove_file(db, file, now):
    """Remove a file; a violation if a running guest uses it or if it was the last good copy."""
    db.execute('DELETE FROM file WHERE identity = ? AND uuid = ? AND name = ?', (file['identity'], file['uuid'], file['name']))
    truth = db.execute('SELECT * FROM truth WHERE uuid = ?', (file['uuid'],)).fetchone()
    if truth is None or file['name'] not in {os.path.basename(d.path) for d in local(disks_of(truth['disks']))}:
        return
    users = [r['host'] for r in db.execute(
        "SELECT guest.host FROM guest JOIN storage ON storage.host = guest.host AND storage.identity = ? "
        "WHERE guest.uuid = ? AND guest.state IN ('running', 'paused')", (file['identity'], file['uuid'])).fetchall()]
    if users and file['complete']:
        violate(db, file['uuid'], f'{file["name"]} was removed under the guest at {", ".join(users)}', now)
    if not good_copies(db, truth, file['name']):
        violate(db, file['uuid'], f'the last good copy of {file["name"]} was removed', now)


def good_copies(db, truth, name):
    """Identities of the storage that holds a complete copy of a disk's file with all that was ever written."""
    return [r['identity'] for r in db.execute('SELECT identity FROM file WHERE uuid = ? AND name = ? AND complete = 1 AND content >= ?',
                                              (truth['uuid'], name, truth['writes'])).fetchall()]


def violate(db, uuid, words, now):
    """Record that the promise was broken."""
    db.execute('INSERT INTO violation (at, uuid, words) VALUES (?, ?, ?)', (now, uuid, words))
