"""migrator-volume-agent: the agent of one host's arrays."""
from migrator.cmd import daemon

PROGRAM = 'migrator-volume-agent'


def build(argv, held):
    """Make the agent, the only one of its kind on this host. See daemon.main."""
    from migrator import config, service
    from migrator.rpc import transport
    from migrator.volume.service import VolumeService

    conf = config.setup(argv, PROGRAM)
    held.enter_context(service.only_one(VolumeService.lock_path(conf)))
    return VolumeService(conf, transport.get_transport(conf))


def main(argv=None):
    """Run the agent until it is told to end. argv: arguments without the program's name. Does not return."""
    daemon.main(PROGRAM, build, argv)


if __name__ == '__main__':
    main()
