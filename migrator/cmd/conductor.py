"""migrator-conductor: owns every workflow. Run as many as you like."""
from migrator.cmd import daemon

PROGRAM = 'migrator-conductor'


def build(argv, _held):
    """Make a conductor. See daemon.main."""
    from oslo_config import cfg
    from oslo_db import options as db_options

    from migrator import config
    from migrator.conductor.service import ConductorService
    from migrator.rpc import transport

    db_options.set_defaults(cfg.CONF, connection=config.TRIAL_DATABASE)
    conf = config.setup(argv, PROGRAM)
    return ConductorService(conf, transport.get_transport(conf))


def main(argv=None):
    """Run a conductor until it is told to end. argv: arguments without the program's name. Does not return."""
    daemon.main(PROGRAM, build, argv)


if __name__ == '__main__':
    main()
