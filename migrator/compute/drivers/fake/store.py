"""The tables of a world of simulated hypervisors (migrator.simulated.store)."""
from migrator.simulated import store

SCHEMA = """
CREATE TABLE IF NOT EXISTS host (name TEXT PRIMARY KEY, memory_mib INT, cpus INT, version INT, down INT DEFAULT 0) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS storage (host TEXT, directory TEXT, identity TEXT, PRIMARY KEY (host, directory)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS guest (host TEXT, uuid TEXT, name TEXT, state TEXT, reason TEXT DEFAULT '', memory_mib INT, vcpus INT,
    disks TEXT, persistent INT DEFAULT 1, managed INT DEFAULT 0, spec TEXT DEFAULT '', dirty_rate INT, deaf INT DEFAULT 0,
    migration TEXT DEFAULT '', writes INT DEFAULT 0, since REAL, PRIMARY KEY (host, uuid)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS guest_by_uuid ON guest (uuid);
CREATE TABLE IF NOT EXISTS file (identity TEXT, uuid TEXT, name TEXT, owner TEXT DEFAULT '', format TEXT DEFAULT '',
    size INT DEFAULT 0, backing TEXT DEFAULT '', content INT DEFAULT 0, complete INT DEFAULT 1, stamp TEXT DEFAULT '',
    PRIMARY KEY (identity, uuid, name)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS file_by_uuid ON file (uuid);
CREATE TABLE IF NOT EXISTS truth (uuid TEXT PRIMARY KEY, writes INT, disks TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS job (id INTEGER PRIMARY KEY, uuid TEXT, source TEXT, destination TEXT, migration TEXT, copied TEXT, started REAL,
    ends REAL, finished REAL, memory INT, disk INT, bandwidth INT, dirty_rate INT, minimum REAL, paused_after REAL,
    user_paused INT DEFAULT 0, state TEXT DEFAULT 'active', error TEXT DEFAULT '', history INT);
CREATE INDEX IF NOT EXISTS job_active ON job (uuid) WHERE state = 'active';
CREATE INDEX IF NOT EXISTS job_due ON job (ends) WHERE state = 'active';
CREATE INDEX IF NOT EXISTS job_by_migration ON job (migration);
CREATE TABLE IF NOT EXISTS history (id INTEGER PRIMARY KEY, at REAL, process INT, host TEXT, method TEXT, uuid TEXT, migration TEXT,
    result TEXT, changed INT);
CREATE INDEX IF NOT EXISTS history_by_uuid ON history (uuid);
CREATE TABLE IF NOT EXISTS dead_export (uri TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS violation (id INTEGER PRIMARY KEY, at REAL, uuid TEXT, words TEXT);
"""


def open_store(name):
    """Give the store of a world: a file's path, '' or 'memory:NAME'. The same name gives the same store within a process."""
    return store.open_store(name, SCHEMA)


def forget(name):
    """Close a world and forget it; one in memory is gone then. For tests."""
    store.forget(name, SCHEMA)
