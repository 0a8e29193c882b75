"""The schema's versions: `migrator-manage db upgrade`, and the check that a conductor makes before it starts."""
import contextlib
import pathlib

import sqlalchemy as sa
from alembic import command, config, script
from alembic.runtime import migration as runtime

from migrator import exceptions

#: How long an upgrade waits for another one.
LOCK_SECONDS = 60


def _config():
    settings = config.Config()
    settings.set_main_option('script_location', str(pathlib.Path(__file__).parent / 'alembic'))
    settings.set_main_option('path_separator', 'os')
    return settings


def head():
    """Name the newest version that this code knows."""
    return script.ScriptDirectory.from_config(_config()).get_current_head()


def version(database):
    """Name the version of a database, or None if it is empty. Raises Unavailable if the database does not answer."""
    return database.run(lambda tx: runtime.MigrationContext.configure(tx).get_current_revision())


def upgrade(database, to='head'):
    """Bring a database to a version. Idempotent. Two upgrades at once are serialised where the database can lock."""
    settings = _config()
    with database.engine.connect() as connection, _alone(connection):
        settings.attributes['connection'] = connection
        command.upgrade(settings, to)
        connection.commit()     # before others are let in: they must read the version that was written
    return version(database)


@contextlib.contextmanager
def _alone(connection):
    """Keep other upgrades of the same database away; SQLite's transactions do so by themselves."""
    if connection.dialect.name == 'postgresql':
        connection.execute(sa.text('SELECT pg_advisory_xact_lock(7207101)'))      # until the transaction ends
    if connection.dialect.name not in ('mysql', 'mariadb'):
        yield
        return
    name = "CONCAT('migrator/', SHA1(DATABASE()))"      # names of locks are the whole server's
    if connection.execute(sa.text(f'SELECT GET_LOCK({name}, {LOCK_SECONDS})')).scalar() != 1:
        raise exceptions.Unavailable(f'another upgrade of the database has not ended for {LOCK_SECONDS} s')
    try:
        yield
    finally:
        connection.execute(sa.text(f'SELECT RELEASE_LOCK({name})'))      # the connection lives on in the pool, and the lock with it


def check(database):
    """Raise SchemaMismatch, with what to do, unless the database has the version of this code; Unavailable if it does not answer."""
    found = version(database)
    if found != head():
        raise exceptions.SchemaMismatch(f'the database has schema version {found or "none"}, this code needs {head()}: '
                                        'run `migrator-manage db upgrade`')
