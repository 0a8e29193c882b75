"""Writes the configuration files of migrator's daemons in a lab."""
import os
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAMS = {'compute': 'migrator.cmd.compute', 'conductor': 'migrator.cmd.conductor', 'manage': 'migrator.cmd.manage',
            'volume': 'migrator.cmd.volume'}


class Configuration:
    """Configuration files of one lab, in its etc/."""

    def __init__(self, lab):
        """Keep the lab; nothing is written. `transport_url` and `database` may be set to use others than the lab's own."""
        self._lab = lab
        self.transport_url = ''
        self.database = ''

    def program(self, name):
        """The command of a daemon, as a list: this Python with the daemon's module."""
        return [sys.executable, '-m', PROGRAMS[name]]

    @staticmethod
    def environment(more=None):
        """Environment for a daemon: this one's, with the source tree among the modules, and `more`."""
        return {**os.environ, 'PYTHONPATH': str(ROOT), **(more or {})}

    def broker(self):
        """URL of the broker: what was set, or the lab's RabbitMQ, which is started if need be."""
        return self.transport_url or self._lab.start_service('rabbitmq')

    def database_url(self):
        """URL of the database: what was set, or a SQLite file in the lab."""
        return self.database or f'sqlite:///{self._lab.folder}/state/migrator.sqlite'

    def agent(self, name, shared=False, **sections):
        """Write the configuration of the agent on host `name`; returns its path.

        shared: instances lie on the shared storage instead of the host's own. sections: options to add or change, as
        `compute={'heartbeat_interval': 0.2}`; `DEFAULT` is a section too.
        """
        host, lab = self._lab.host(name), self._lab
        paths = [lab.shared, lab.instances] if shared else [lab.instances, lab.shared]
        return self._write(name, {
            'DEFAULT': {'host': name, 'transport_url': self.broker(), 'state_path': host.state, 'debug': 'true'},
            'compute': {'driver': 'libvirt', 'instances_path': paths[0], 'extra_disk_paths': paths[1], 'heartbeat_interval': 0.5,
                        'boot_file_paths': f'/boot,{lab.initrd.parent}'},
            'libvirt': {'connection_uri': 'qemu:///system', 'live_migration_uri': host.peer_uri, 'live_migration_address': host.ip,
                        'listen_address': host.ip, 'virt_type': 'qemu'},
            'oslo_concurrency': {'lock_path': host.state / 'locks'}}, sections)

    def volume_agent(self, name, arrays, **sections):
        """Write the configuration of a volume agent; returns its path. arrays: {backend: Array}. sections as for `agent`."""
        state = self._lab.folder / 'state' / name
        backends = {backend: {
            'driver': 'qsd', 'pools': ','.join(f'{pool}:{path}' for pool, path in array.pools.items()), 'qmp_socket': array.socket,
            'format': 'raw', 'listen_address': array.address, 'listen_port': array.port} for backend, array in arrays.items()}
        return self._write(name, {
            'DEFAULT': {'host': name, 'transport_url': self.broker(), 'state_path': state, 'debug': 'true'},
            'volume': {'enabled_backends': ','.join(arrays), 'heartbeat_interval': 0.5},
            'oslo_concurrency': {'lock_path': state / 'locks'}, **backends}, sections)

    def conductor(self, name='conductor', **sections):
        """Write the configuration of a conductor; returns its path. sections as for `agent`."""
        state = self._lab.folder / 'state'
        return self._write(name, {
            'DEFAULT': {'host': name, 'transport_url': self.broker(), 'state_path': state, 'debug': 'true'},
            'database': {'connection': self.database_url()},
            'conductor': {'host_down_after': 3, 'host_lost_after': 20, 'retry_interval': 0.5, 'observe_interval': 0.5, 'poll_interval': 5},
            'oslo_concurrency': {'lock_path': state / 'locks'}}, sections)

    def client(self):
        """Write the configuration of the command line, for use on the machine itself; returns its path."""
        return self._write('client', {'DEFAULT': {'transport_url': self.broker()}}, {})

    def _write(self, name, content, changes):
        for section, options in changes.items():
            content.setdefault(section, {}).update(options)
        if 'state_path' in content['DEFAULT']:
            pathlib.Path(content['DEFAULT']['state_path']).mkdir(parents=True, exist_ok=True)
        lines = []
        for section, options in content.items():
            lines += [f'[{section}]', *(f'{key} = {value}' for key, value in options.items()), '']
        path = self._lab.folder / 'etc' / f'{name}.conf'
        path.write_text('\n'.join(lines))
        return path
