"""migrator-conductor: owns every workflow. Run as many as you like."""
import sys


def main(argv=None):
    """Run a conductor until it is told to end. argv: arguments without the program's name. Does not return."""
    from migrator import concurrency
    concurrency.setup()  # before anything else is imported: what is imported before the patch stays unpatched

    from oslo_config import cfg
    from oslo_db import options as db_options

    from migrator import config, exceptions, service
    from migrator.conductor.service import ConductorService
    from migrator.rpc import transport

    try:
        db_options.set_defaults(cfg.CONF, connection=config.TRIAL_DATABASE)
        conf = config.setup(sys.argv[1:] if argv is None else argv, 'migrator-conductor')
        code = service.run(ConductorService(conf, transport.get_transport(conf)))
    except (cfg.Error, exceptions.MigratorError, OSError) as error:
        print(f'migrator-conductor: {error}', file=sys.stderr)
        code = 1
    service.leave(code)


if __name__ == '__main__':
    main()
