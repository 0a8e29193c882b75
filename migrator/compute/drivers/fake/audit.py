"""Is the promise kept? Looks over the whole simulated world: one copy in charge of each guest, nothing lost, nothing left behind."""
import os

from migrator.compute.drivers.fake import guests


def violations(db):
    """What is or was wrong with any guest that was not deleted on purpose, in words; what happened comes first."""
    words = [f'{r["uuid"]}: {r["words"]}' for r in db.execute('SELECT uuid, words FROM violation ORDER BY id')]
    for truth in db.execute('SELECT * FROM truth').fetchall():
        words.extend(f'{truth["uuid"]}: {what}' for what in _guest(db, truth))
    return words


def _guest(db, truth):
    rows = db.execute("SELECT * FROM guest WHERE uuid = ? AND state != 'incoming' ORDER BY host", (truth['uuid'],)).fetchall()
    running = [r['host'] for r in rows if r['state'] == 'running']
    if not rows:
        yield 'no host knows the guest'
    if len(running) > 1:
        yield f'two running copies: {", ".join(running)}'
    good = {}
    for disk in guests.local(guests.disks_of(truth['disks'])):
        name = os.path.basename(disk.path)
        good[disk] = guests.good_copies(db, truth, name)
        if not good[disk]:
            yield f'no good copy of {name}'
    for row in rows:
        if len(rows) == 1 or row['host'] in running:
            yield from (f'{row["state"]} at {row["host"]} without a good copy of {os.path.basename(disk.path)}'
                        for disk, where in good.items() if where and guests.identity(db, row['host'], disk.directory) not in where)


def leftovers(db, uuid):
    """What of a guest lies outside its home, or was not cleared up there, in words."""
    rows = db.execute('SELECT * FROM guest WHERE uuid = ? ORDER BY host', (uuid,)).fetchall()
    home = next((r['host'] for state in ('running', 'paused', 'off') for r in rows if r['state'] == state), None)
    words = [f'{r["state"]} domain at {r["host"]}' for r in rows if r['host'] != home]
    seen = {f['identity'] for f in guests.files_of(db, home, uuid)} if home else set()
    for file in db.execute('SELECT * FROM file WHERE uuid = ? ORDER BY identity, name', (uuid,)).fetchall():
        hosts = [r['host'] for r in db.execute('SELECT host FROM storage WHERE identity = ? ORDER BY host', (file['identity'],))]
        if file['identity'] not in seen:
            words.append(f'file {file["name"]} at {", ".join(hosts)}')
        elif file['owner'].startswith(guests.BY_MIGRATION):
            words.append(f'marker of {file["owner"]} on {file["name"]} at {", ".join(hosts)}')
    words.extend(f'active job of migration {r["migration"]}' for r in
                 db.execute("SELECT migration FROM job WHERE uuid = ? AND state = 'active'", (uuid,)))
    words.extend(f'guest left {r["state"]} by the migration at {home}' for r in rows if r['host'] == home and r['reason'] == 'migration')
    return words
