"""migrator-compute: the agent of one hypervisor."""
from migrator.cmd import daemon

PROGRAM = 'migrator-compute'


def build(argv, held):
    """Make the agent, the only one on this host. See daemon.main."""
    from migrator import config, service
    from migrator.compute.service import ComputeService
    from migrator.rpc import transport

    conf = config.setup(argv, PROGRAM)
    held.enter_context(service.only_one(ComputeService.lock_path(conf)))
    return ComputeService(conf, transport.get_transport(conf))


def main(argv=None):
    """Run the agent until it is told to end. argv: arguments without the program's name. Does not return."""
    daemon.main(PROGRAM, build, argv)


if __name__ == '__main__':
    main()
