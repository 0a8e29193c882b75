"""Which command is where. Commands load when they are called for, so that `migrator` starts at once.

The same list stands in setup.cfg as entry points of the namespace `migrator.cli`, for tools that look there; a package of its own
may add commands to that namespace. What is listed here needs no installed distribution.
"""
import importlib
import importlib.metadata

from cliff import commandmanager

NAMESPACE = 'migrator.cli'

COMMANDS = {
    'audit': 'migrator.cli.audit:Audit',
    'backend list': 'migrator.cli.backend:BackendList',
    'backend show': 'migrator.cli.backend:BackendShow',
    'debt list': 'migrator.cli.debt:DebtList',
    'debt write-off': 'migrator.cli.debt:DebtWriteOff',
    'host list': 'migrator.cli.host:HostList',
    'host show': 'migrator.cli.host:HostShow',
    'host disable': 'migrator.cli.host:HostDisable',
    'host enable': 'migrator.cli.host:HostEnable',
    'instance list': 'migrator.cli.instance:InstanceList',
    'instance show': 'migrator.cli.instance:InstanceShow',
    'instance create': 'migrator.cli.instance_create:InstanceCreate',
    'instance start': 'migrator.cli.instance:InstanceStart',
    'instance stop': 'migrator.cli.instance:InstanceStop',
    'instance delete': 'migrator.cli.instance:InstanceDelete',
    'instance forget': 'migrator.cli.instance_forget:InstanceForget',
    'live-migrate': 'migrator.cli.live_migrate:LiveMigrate',
    'migration list': 'migrator.cli.migration:MigrationList',
    'migration show': 'migrator.cli.migration:MigrationShow',
    'migration watch': 'migrator.cli.watch:MigrationWatch',
    'migration abort': 'migrator.cli.migration:MigrationAbort',
    'migration force-complete': 'migrator.cli.migration:MigrationForceComplete',
    'migration set-bandwidth': 'migrator.cli.volume_migrate:MigrationSetBandwidth',
    'migration recover': 'migrator.cli.recover:MigrationRecover',
    'volume list': 'migrator.cli.volume:VolumeList',
    'volume show': 'migrator.cli.volume:VolumeShow',
    'volume create': 'migrator.cli.volume:VolumeCreate',
    'volume extend': 'migrator.cli.volume:VolumeExtend',
    'volume delete': 'migrator.cli.volume:VolumeDelete',
    'volume attach': 'migrator.cli.volume:VolumeAttach',
    'volume detach': 'migrator.cli.volume:VolumeDetach',
    'volume migrate': 'migrator.cli.volume_migrate:VolumeMigrate',
}


class Lazy:
    """A command that is imported when it is used; quacks like an entry point."""

    def __init__(self, name, value):
        self.name = name
        self.value = value

    def load(self):
        """Import the command's class."""
        module, _, name = self.value.partition(':')
        return getattr(importlib.import_module(module), name)


class CommandManager(commandmanager.CommandManager):
    """Commands of the table first; entry points of other packages are looked for only when the table does not have the command."""

    def __init__(self):
        self._extended = False
        super().__init__(NAMESPACE)

    def load_commands(self, namespace):
        """Take the table. cliff would import every command here."""
        self.group_list.append(namespace)
        self.commands.update({name: Lazy(name, value) for name, value in COMMANDS.items()})

    def find_command(self, argv):
        """Find a command by its words; raises ValueError if there is none."""
        try:
            return super().find_command(argv)
        except ValueError:
            self.extend()
            return super().find_command(argv)

    def __iter__(self):
        self.extend()
        return super().__iter__()

    def extend(self):
        """Add what other packages offer."""
        if not self._extended:
            self._extended = True
            for point in importlib.metadata.entry_points(group=NAMESPACE):
                self.commands.setdefault(point.name.replace('_', ' '), point)
