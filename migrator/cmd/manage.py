"""migrator-manage: work on the database that needs no running conductor.

`db upgrade` brings the schema to this code's version, `db version` shows both, `db purge --older-than DAYS` deletes migrations that
ended long ago, with their timelines.
"""
import argparse
import sys

from oslo_config import cfg
from oslo_db import exception as db_exception
from oslo_db import options as db_options

from migrator import config, exceptions
from migrator.conductor.db import ledger, schema
from migrator.conductor.db.database import Database

DAY_MS = 86_400_000


def upgrade(database, _arguments):
    """Bring the schema to this code's version; harmless when it is there already."""
    before = schema.version(database)
    after = schema.upgrade(database)
    print(f'schema version {after}' + ('' if before == after else f' (was {before or "none"})'))


def version(database, _arguments):
    """Show the schema's version and the one that this code needs."""
    print(f'database: {schema.version(database) or "none"}, code: {schema.head()}')


def purge(database, arguments):
    """Delete what ended more than the given number of days ago. Whatever still runs or owes something stays."""
    schema.check(database)
    print(f'{database.run(lambda tx: ledger.purge(tx, int(arguments.older_than * DAY_MS)))} migrations deleted')


def days(value):
    """Read a number of days."""
    number = float(value)
    if not 0 <= number < 100_000:
        raise argparse.ArgumentTypeError('must be a number of days, 0 or more')
    return number


def parser():
    """Make the command line's parser."""
    top = argparse.ArgumentParser(prog='migrator-manage', description='Work on the database of migrator.')
    top.add_argument('--config-file', action='append', default=None, help='configuration file; may be given several times')
    top.add_argument('--database', default=None, help='SQLAlchemy URL, instead of [database] connection')
    groups = top.add_subparsers(dest='group', required=True)
    db = groups.add_parser('db', help='schema and old rows').add_subparsers(dest='what', required=True)
    db.add_parser('upgrade', help='bring the schema to the version of this code').set_defaults(run=upgrade)
    db.add_parser('version', help='show the version of the schema').set_defaults(run=version)
    old = db.add_parser('purge', help='delete migrations that ended long ago')
    old.add_argument('--older-than', type=days, required=True, metavar='DAYS', help='days since the end; 0.5 is twelve hours')
    old.set_defaults(run=purge)
    return top


def main(argv=None):
    """Run the command. Returns the exit code."""
    arguments = parser().parse_args(argv)
    conf = cfg.CONF
    db_options.set_defaults(conf, connection=config.TRIAL_DATABASE)
    config.setup([part for name in arguments.config_file or () for part in ('--config-file', name)], 'migrator-manage', conf)
    try:
        database = Database(arguments.database or conf.database.connection)
        try:
            arguments.run(database, arguments)
        finally:
            database.dispose()
    except exceptions.MigratorError as error:
        print(f'migrator-manage: {error.kind}: {error}', file=sys.stderr)
        return error.exit_code
    except db_exception.DBError as error:
        print(f'migrator-manage: Unavailable: {str(error).splitlines()[0]}', file=sys.stderr)
        return exceptions.Unavailable.exit_code
    return 0


if __name__ == '__main__':
    sys.exit(main())
