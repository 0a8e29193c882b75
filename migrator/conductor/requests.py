"""What users ask for guests: checked, and written down as a workflow in one transaction, or refused by name and nothing changed."""
import types

from migrator import exceptions
from migrator.conductor.db import catalogue, debts, hosts, ledger, volumes
from migrator.conductor.intake import Intake, Order, Wanted, refuse_locked
from migrator.rpc import facts
from migrator.states import InstanceState

#: What makes a guest run that did not, or may be followed by that.
STARTING = ('instance_start', 'instance_create', 'instance_define')


class Requests(Intake):
    """Takes requests for guests."""

    # --- the requests ---

    def live_migrate(self, context, instance, destination, request_id, options):
        """Ask for a live migration. Returns (row, transition); transition is None for a repeated request or a queued migration."""
        def prepare(tx):
            guest = self._free(tx, instance)
            rows = hosts.get_many(tx, [guest.host, destination])
            self.may_move(guest, destination, rows)
            request = {'guest': facts.to_wire(guest_of(guest)), 'options': options}
            return self._order(tx, 'live_migration', guest, request, rows, destination)
        return self.ask(context, request_id, prepare, Wanted('live_migration', instance, destination, arguments={'options': options}))

    def instance_create(self, context, host, spec, request_id, start):
        """Ask for a new guest on a host. Its name must be nobody else's, on any host, or neither could be asked for by it."""
        kind = 'instance_create' if start else 'instance_define'

        def prepare(tx):
            rows = hosts.get_many(tx, [host])
            self.usable(host, rows)
            if catalogue.several(tx, [spec.uuid]):
                raise exceptions.InstanceExists(f'instance {spec.uuid} exists already')
            self._name_is_free(tx, spec)
            owed = len(debts.of_instance(tx, spec.uuid))
            new = types.SimpleNamespace(uuid=spec.uuid, name=spec.name, host=host, locked_by=None, owed=owed)
            return self._order(tx, kind, new, {'spec': facts.to_wire(spec)}, rows, locks=(catalogue.name_resource(spec.name),))
        return self.ask(context, request_id, prepare, Wanted(kind, spec.uuid, host=host, arguments={'spec': spec}))

    def instance_start(self, context, instance, request_id):
        """Ask to start a guest. No guest is started while a lock or a debt names it."""
        def prepare(tx):
            guest = self._free(tx, instance)
            rows = hosts.get_many(tx, [guest.host])
            self.usable(guest.host, rows, disabled_too=True)
            self.not_elsewhere(guest)
            if guest.state == InstanceState.UNKNOWN:
                raise exceptions.NotPossible(f'{guest.host} does not know instance {guest.name or guest.uuid} at present')
            return self._order(tx, 'instance_start', guest, {}, rows)
        return self.ask(context, request_id, prepare, Wanted('instance_start', instance))

    def instance_stop(self, context, instance, request_id, timeout):
        """Ask to stop a guest. timeout: seconds that it is given to shut down by itself."""
        def prepare(tx):
            guest = self._free(tx, instance)
            rows = hosts.get_many(tx, [guest.host])
            self.usable(guest.host, rows, disabled_too=True)
            return self._order(tx, 'instance_stop', guest, {'timeout': timeout}, rows)
        return self.ask(context, request_id, prepare, Wanted('instance_stop', instance, arguments={'timeout': timeout}))

    def instance_delete(self, context, instance, request_id):
        """Ask to delete a stopped guest with the disks that were made for it.

        One that its host does not know is refused, unless an earlier removal accounts for that: then what that left is removed.
        """
        def prepare(tx):
            guest = self._free(tx, instance)
            rows = hosts.get_many(tx, [guest.host])
            self.usable(guest.host, rows, disabled_too=True)
            self.not_elsewhere(guest)
            if guest.state == InstanceState.UNKNOWN and ledger.latest_kind(tx, guest.uuid) != 'instance_delete':
                name = guest.name or guest.uuid
                raise exceptions.NotPossible(f'{guest.host} does not know instance {name} at present; it may run elsewhere')
            if guest.state in (InstanceState.RUNNING, InstanceState.PAUSED):
                raise exceptions.InstanceRunning(f'instance {guest.name or guest.uuid} is {guest.state}; stop it first')
            if volumes.of_instance(tx, guest.uuid):
                raise exceptions.VolumeInUse(f'instance {guest.name or guest.uuid} has volumes; detach them first')
            return self._order(tx, 'instance_delete', guest, {}, rows)
        return self.ask(context, request_id, prepare, Wanted('instance_delete', instance))

    # --- the rules ---

    def _free(self, tx, instance):
        """Read a guest that nobody works on. What somebody works on is about to change, so this is said before anything else."""
        guest = catalogue.get(tx, instance)
        if guest.locked_by:
            name = called(guest)
            refuse_locked(tx, catalogue.resource(guest.uuid), name)
            raise exceptions.ResourceLocked(f'{name} is being worked on')
        return guest

    @staticmethod
    def _name_is_free(tx, spec):
        """Raise InstanceExists if a guest has the name of a new one, or ResourceLocked if another one of the name is being made."""
        for row in catalogue.named(tx, spec.name):
            raise exceptions.InstanceExists(f'there is an instance of the name {spec.name} already: {row.uuid} on {row.host}, {row.state}')
        holder = ledger.lock_holder(tx, catalogue.name_resource(spec.name))
        if holder is not None:
            raise exceptions.ResourceLocked(f'another instance of the name {spec.name} is being made ({holder.kind} {holder.id})')

    def may_move(self, guest, destination, rows):
        """Raise a typed error unless this guest may be sent there, as far as the catalogue can tell."""
        name = guest.name or guest.uuid
        if guest.host == destination:
            raise exceptions.SameHost(f'instance {name} is on {destination} already')
        self.not_elsewhere(guest)
        self.usable(destination, rows)
        self.usable(guest.host, rows, disabled_too=True)
        if guest.state not in (InstanceState.RUNNING, InstanceState.PAUSED):
            raise exceptions.InstanceNotRunning(f'instance {name} is {guest.state}, a live migration needs it running')

    @staticmethod
    def not_elsewhere(guest):
        """Raise SeenElsewhere while another host says that it has the guest: a second copy, or the loss of the good one, would follow."""
        if guest.sighted_host:
            raise exceptions.SeenElsewhere(
                f'instance {guest.name or guest.uuid} is {guest.sighted_state} on {guest.sighted_host}, the catalogue has it '
                f'{guest.state} on {guest.host}; it is left alone until one of the two hosts no longer has it')

    # --- writing it down ---

    def _order(self, tx, kind, guest, request, rows, destination='', locks=()):
        """locks: what to lock beside the guest."""
        if guest.owed:
            self._refuse_owed(tx, kind, guest, destination)
        if kind in STARTING and rows[guest.host].owing:
            raise exceptions.DebtOutstanding(f'{guest.host} does the cleanups first that are owed there; try again in a moment')
        limits = ()
        if kind == 'live_migration':
            limits = guest.memory_mib, [d['size'] for d in guest.disks if d['kind'] == 'file']
        return Order(kind, called(guest), request, rows[guest.host], (catalogue.resource(guest.uuid), *locks), rows.get(destination),
                     instance=(guest.uuid, guest.name), limits=limits)

    @staticmethod
    def _refuse_owed(tx, kind, guest, destination):
        """Refuse what a debt forbids.

        No guest is started while a debt names it, and none is sent to where one is still to be paid. Nothing at all is done to one whose
        cleanup was refused: it is not where it was thought to be, or it is there twice.
        """
        owed = debts.of_instance(tx, guest.uuid)
        if kind in STARTING or any(d.host == destination or d.refused for d in owed):
            words = '; '.join(f'{d.action} at {d.host}: {d.reason}' for d in owed)
            raise exceptions.DebtOutstanding(f'a cleanup that names instance {guest.name or guest.uuid} is not done yet: {words}')


def called(guest):
    """Name a guest in a sentence."""
    return f'instance {guest.name or guest.uuid}'


def guest_of(row):
    """Turn a catalogue row into what agents are told of the guest."""
    return facts.from_wire(facts.Guest, {
        'uuid': row.uuid, 'name': row.name, 'state': row.state if row.state in ('running', 'paused') else 'off',
        'memory_mib': row.memory_mib, 'vcpus': row.vcpus, 'disks': row.disks, 'boot_files': row.boot_files,
        'managed': bool(row.managed)})
