"""The rows of simulated arrays: LUNs with their data, exports, mirrors. Each function works within one transaction.

A LUN's data is one byte for each block. While it is mirrored, what is written goes to its remote and to itself, and what is read comes from
the remote; the data that was there before arrives at `ready_at`, all at once.
"""
import json
import re

from migrator import exceptions

SCHEMA = """
CREATE TABLE IF NOT EXISTS array (id INTEGER PRIMARY KEY, name TEXT UNIQUE, up INT DEFAULT 1);
CREATE TABLE IF NOT EXISTS pool (array TEXT, name TEXT, total INT, PRIMARY KEY (array, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lun (array TEXT, pool TEXT, name TEXT, size INT, owner TEXT, data BLOB, mirror TEXT DEFAULT '',
    began REAL, ready_at REAL, PRIMARY KEY (array, pool, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS export (array TEXT, name TEXT, pool TEXT, lun TEXT, writable INT, clients INT DEFAULT 0,
    PRIMARY KEY (array, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS history (id INTEGER PRIMARY KEY, at REAL, array TEXT, method TEXT, lun TEXT, owner TEXT, result TEXT);
"""
#: Bytes of a block.
BLOCK = 4096

_URI = re.compile(r'nbds?://array-(?P<id>\d+)\.simulated:\d+/(?P<export>[^/]+)\Z')


def add_array(db, name, pools):
    """Make an array, and those pools that it lacks. pools: {name: bytes}."""
    db.execute('INSERT INTO array (name) VALUES (?) ON CONFLICT DO NOTHING', (name,))
    db.executemany('INSERT INTO pool VALUES (?, ?, ?) ON CONFLICT (array, name) DO UPDATE SET total = excluded.total',
                   [(name, pool, total) for pool, total in pools.items()])


def get(db, array, pool, lun):
    """Give a LUN's row, or None. Raises InvalidRequest for a pool that is not there."""
    if free(db, array, pool) is None:
        raise exceptions.InvalidRequest(f'there is no pool {pool!r:.80}')
    return db.execute('SELECT * FROM lun WHERE array = ? AND pool = ? AND name = ?', (array, pool, lun)).fetchone()


def free(db, array, pool):
    """Give the bytes that a pool can still take; None if it is not there."""
    row = db.execute('SELECT total - (SELECT coalesce(sum(size), 0) FROM lun WHERE array = pool.array AND pool = pool.name) AS free '
                     'FROM pool WHERE array = ? AND name = ?', (array, pool)).fetchone()
    return row['free'] if row else None


def exports(db, array, pool, lun):
    """Give the rows of a LUN's exports."""
    return db.execute('SELECT * FROM export WHERE array = ? AND pool = ? AND lun = ? ORDER BY name', (array, pool, lun)).fetchall()


def uri(db, array, export):
    """Say where an export is reached."""
    number = db.execute('SELECT id FROM array WHERE name = ?', (array,)).fetchone()['id']
    return f'nbd://array-{number}.simulated:10809/{export}'


def is_simulated(address):
    """True for an export's address that only the simulation knows."""
    return _URI.match(address) is not None


def reach(db, address):
    """Connect to an export: gives its row. Raises DriverError as a client would see it."""
    match = _URI.match(address)
    row = match and db.execute('SELECT export.* FROM export JOIN array ON array.name = export.array WHERE array.id = ? AND export.name = ? '
                               'AND up = 1', (int(match['id']), match['export'])).fetchone()
    if not row:
        raise exceptions.DriverError(f'{address} cannot be reached')
    return row


def connect(db, export, change):
    """Count clients of an export's row that come (1) or go (-1)."""
    db.execute('UPDATE export SET clients = clients + ? WHERE array = ? AND name = ?', (change, export['array'], export['name']))


def users(db, array, export):
    """Count who is connected to an export: clients, and arrays that mirror from it."""
    row = db.execute('SELECT clients FROM export WHERE array = ? AND name = ?', (array, export)).fetchone()
    if row is None:
        return 0
    mirrors = db.execute('SELECT count(*) AS number FROM lun WHERE mirror = ?', (uri(db, array, export),)).fetchone()['number']
    return row['clients'] + mirrors


def read(db, address):
    """Give the data behind an export, one byte for each block, and the LUN's size."""
    export = reach(db, address)
    lun = get(db, export['array'], export['pool'], export['lun'])
    return read(db, lun['mirror']) if lun['mirror'] else (lun['data'], lun['size'])


def write(db, address, first, data):
    """Write blocks from number `first` on, as a client of the export. Raises DriverError where it cannot be."""
    export = reach(db, address)
    if not export['writable']:
        raise exceptions.DriverError(f'{address} is read-only')
    lun = get(db, export['array'], export['pool'], export['lun'])
    if lun['mirror']:
        write(db, lun['mirror'], first, data)
    put(db, lun, first, data)


def put(db, lun, first, data):
    """Put blocks into a LUN itself."""
    changed = bytearray(lun['data'])
    changed[first:first + len(data)] = data
    db.execute('UPDATE lun SET data = ? WHERE array = ? AND pool = ? AND name = ?',
               (bytes(changed), lun['array'], lun['pool'], lun['name']))


def make(db, array, pool, lun, size, owner, **more):
    """Make a LUN of zeros, unless this owner made it with that size already. NameTaken, NoSpace. Returns whether it was made."""
    known = get(db, array, pool, lun)
    if known is not None:
        if (known['owner'], known['size']) != (owner, size):
            raise exceptions.NameTaken(f'LUN {lun} is there already: made by {known["owner"] or "somebody"}, {known["size"]} bytes')
        return False
    if size > free(db, array, pool):
        raise exceptions.NoSpace(f'pool {pool} has {free(db, array, pool)} bytes free, LUN {lun} wants {size}')
    values = {'array': array, 'pool': pool, 'name': lun, 'size': size, 'owner': owner, 'data': bytes(-(-size // BLOCK)), **more}
    db.execute(f'INSERT INTO lun ({", ".join(values)}) VALUES ({", ".join("?" * len(values))})', tuple(values.values()))
    return True


def remove(db, array, pool, lun):
    """Remove a LUN."""
    db.execute('DELETE FROM lun WHERE array = ? AND pool = ? AND name = ?', (array, pool, lun))


def settle(db, lun, now):
    """Let a mirror end that is due and whose remote answers: the LUN has all of it and needs it no more. Returns whether it did.

    DriverError when the remote cannot be reached.
    """
    data, _ = read(db, lun['mirror'])
    if lun['ready_at'] > now:
        return False
    db.execute("UPDATE lun SET data = ?, mirror = '' WHERE array = ? AND pool = ? AND name = ?",
               (data, lun['array'], lun['pool'], lun['name']))
    return True


def pace(db, lun, seconds, now):
    """Let a mirror take `seconds` in all from now on, of which the part that has arrived has passed."""
    part = min(1.0, (now - lun['began']) / max(0.001, lun['ready_at'] - lun['began']))
    db.execute('UPDATE lun SET began = ?, ready_at = ? WHERE array = ? AND pool = ? AND name = ?',
               (now - part * seconds, now + (1 - part) * seconds, lun['array'], lun['pool'], lun['name']))


def restart(db, array, now):
    """What an array's restart does to its mirrors: they begin anew."""
    db.execute("UPDATE lun SET ready_at = ready_at - began + ?, began = ? WHERE array = ? AND mirror != ''", (now, now, array))


def note(db, now, array, method, lun, owner, result):
    """Write down what a method came to."""
    db.execute('INSERT INTO history (at, array, method, lun, owner, result) VALUES (?, ?, ?, ?, ?, ?)',
               (now, array, method, lun, owner, result if isinstance(result, str) else json.dumps(result)))
