"""migrator-compute: the agent of one hypervisor."""
import sys


def main(argv=None):
    """Run the agent until it is told to end. argv: arguments without the program's name. Does not return."""
    from migrator import concurrency
    concurrency.setup()  # before anything else is imported: what is imported before the patch stays unpatched

    from oslo_config import cfg

    from migrator import config, exceptions, service
    from migrator.compute.service import ComputeService
    from migrator.rpc import transport

    try:
        conf = config.setup(sys.argv[1:] if argv is None else argv, 'migrator-compute')
        with service.only_one(ComputeService.lock_path(conf)):
            code = service.run(ComputeService(conf, transport.get_transport(conf)))
    except (cfg.Error, exceptions.MigratorError, OSError) as error:
        print(f'migrator-compute: {error}', file=sys.stderr)
        code = 1
    service.leave(code)


if __name__ == '__main__':
    main()
