"""Does the database server keep what it has acknowledged? The promise that nothing is lost stands on it.

A conductor acts only after its commit has been acknowledged: it tells an agent to move a guest after the row says so. A server that
acknowledges first and writes later turns the row back when it dies, and the conductors then do again what was done, or believe that
nothing was. (Seen: a PostgreSQL with `synchronous_commit` off, killed; a migration was back at its checks, which then found the disks that
it had made itself.) Each PostgreSQL session switches that on for itself (`database`); the rest is the server's to set, and is told here.
"""
import sqlalchemy as sa

#: dialect -> (statement that gives one value, values that lose something, what is lost then).
_SETTINGS = {
    'mysql': (
        ('SELECT @@GLOBAL.innodb_flush_log_at_trx_commit', ('0',),
         'innodb_flush_log_at_trx_commit = 0: up to a second of commits is lost if the server dies'),
        ('SELECT @@GLOBAL.innodb_flush_log_at_trx_commit', ('2',),
         'innodb_flush_log_at_trx_commit = 2: up to a second of commits is lost if its machine dies'),
    ),
    'postgresql': (
        ('SHOW fsync', ('off',), 'fsync = off: all of the data may be lost if its machine dies'),
        ('SHOW full_page_writes', ('off',), 'full_page_writes = off: all of the data may be lost if its machine dies'),
    ),
}


def broken(database):
    """Say what the server's settings may lose. Returns a tuple of words, empty if they keep all. Unavailable as of Database.run."""
    settings = _SETTINGS.get(_family(database), ())

    def read(tx):
        return [str(tx.execute(sa.text(statement)).scalar()) for statement, *_ in settings]
    found = database.run(read) if settings else ()
    return tuple(words for value, (_, bad, words) in zip(found, settings, strict=True) if value in bad)


def _family(database):
    name = database.engine.dialect.name
    return 'mysql' if name == 'mariadb' else name
