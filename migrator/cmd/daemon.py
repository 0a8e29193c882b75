"""What all daemons do from their start to their end."""
import contextlib
import sys


def main(program, build, argv=None):
    """Run a daemon until it is told to end. Does not return.

    program: its name. build: (arguments, contextlib.ExitStack) -> service.Service; it imports what it needs, and what it enters is left at
    the end. argv: arguments without the program's name; None takes the process's own.
    """
    from migrator import concurrency
    concurrency.setup()  # before anything else is imported: what is imported before the patch stays unpatched

    from oslo_config import cfg

    from migrator import exceptions, service

    try:
        with contextlib.ExitStack() as held:
            code = service.run(build(sys.argv[1:] if argv is None else argv, held))
    except (cfg.Error, exceptions.MigratorError, OSError) as error:
        print(f'{program}: {error}', file=sys.stderr)
        code = 1
    service.leave(code)
