"""A compute agent process for tests: the real daemon around a driver that notes in files what it does and waits for a file.

`python -m tests.functional.rpc_agent --config-file FILE`; the files lie in the agent's instances_path: `calls` has a line for each call
of the driver that changes something, and `live_migration` returns once a file `go` is there.
"""
import sys


def make_driver(conf):
    """Make the driver; imported late, after the choice of concurrency."""
    import os

    from migrator import concurrency
    from migrator.rpc import facts
    from migrator.states import GuestState
    from tests.unit.compute.scripted import ScriptedDriver

    class FileDriver(ScriptedDriver):
        """Notes its calls in a file; waits natively, as libvirt does."""

        def _path(self, name):
            return os.path.join(conf.compute.instances_path, name)

        def _note(self, name, plan):
            with open(self._path('calls'), 'a', encoding='ascii') as file:
                file.write(f'{name} {plan.migration_id}\n')

        def pre_live_migration(self, plan):
            self._note('pre_live_migration', plan)
            return {'made': []}

        def live_migration(self, plan, prepared):
            self._note('live_migration', plan)
            while not os.path.exists(self._path('go')):
                concurrency.native_sleep(0.02)
            return {'downtime_ms': 1}

        def locate(self, instance_uuid):
            return facts.Location(state=GuestState.RUNNING)
    return FileDriver(conf, conf.host)


def main():
    """Run the daemon as migrator-compute does."""
    from migrator import concurrency
    concurrency.setup()

    from migrator import config, exceptions, service
    from migrator.compute.service import ComputeService
    from migrator.rpc import transport

    conf = config.setup(sys.argv[1:], 'migrator-compute')
    try:
        with service.only_one(ComputeService.lock_path(conf)):
            code = service.run(ComputeService(conf, transport.get_transport(conf), make_driver(conf)))
    except exceptions.MigratorError as error:
        print(f'migrator-compute: {error}', file=sys.stderr)
        code = 1
    service.leave(code)


if __name__ == '__main__':
    main()
