"""The conductor's two faces on the bus: what users ask (UserEndpoint), and what agents tell (AgentEndpoint).

Thin on purpose: arguments are checked and turned into values, the work is done by requests, engine, inventory and payments.
"""
from oslo_log import log

from migrator import exceptions
from migrator.conductor import later, stimulus
from migrator.conductor.agents import Reply, plan_of, unusable
from migrator.conductor.compatible import compatible
from migrator.conductor.db import catalogue, debts, hosts, views
from migrator.conductor.requests import guest_of
from migrator.conductor.workflows import WORKFLOWS
from migrator.rpc import contract, facts, server
from migrator.states import AgentKind, InstanceState, Status

LOG = log.getLogger(__name__)

MAX_PAGE = 1000


class UserEndpoint:
    """What an API tier or the command line may call; the contract is `migrator.rpc.contract.CONDUCTOR`."""

    target = server.target(contract.CONDUCTOR_VERSION)

    def __init__(self, database, engine, requests, recovery, inspection, forgetting, agents, settings, pool):
        self.database = database
        self.engine = engine
        self.recovery = recovery
        self.inspection = inspection
        self.forgetting = forgetting
        self.requests = requests
        self.agents = agents
        self.settings = settings
        self.pool = pool

    # --- migrations ---

    @server.exposed(contract.CONDUCTOR)
    def live_migrate(self, context, instance, destination_host, request_id, options):
        """Ask for a live migration; returns at once with the migration, or with a verdict for a dry run."""
        instance, destination = text(instance, 'instance'), host_name(destination_host)
        options = migrate_options(options)
        if options.pop('dry_run'):
            return self._dry_run(context, instance, destination, options)
        return self._accepted(context, self.requests.live_migrate(context, instance, destination, request_key(request_id), options))

    def _dry_run(self, context, instance, destination, options):
        def read(tx):
            guest = catalogue.get(tx, instance)
            self.requests.may_move(guest, destination, hosts.get_many(tx, [guest.host, destination]))
            return guest
        row = self.database.run(read)
        guest = guest_of(row)
        source, offer = self.agents.check(context, guest, row.host, destination)
        verdict = compatible(source, offer)
        plan = plan_of(guest.uuid, guest, row.host, destination, options, source, offer, verdict)
        reasons = list(verdict.reasons or unusable(plan))
        return {'dry_run': True, 'possible': not reasons, 'reasons': reasons, 'instance_uuid': row.uuid,
                'instance_name': row.name, 'source_host': row.host, 'destination_host': destination, 'copy': list(plan.copy)}

    @server.exposed(contract.CONDUCTOR)
    def show(self, context, migration):
        """One migration with its timeline."""
        migration = uuid(migration, 'migration')
        return self.database.run(lambda tx: views.show_migration(tx, migration))

    @server.exposed(contract.CONDUCTOR)
    def list(self, context, filters, limit, marker):
        """Migrations, newest first."""
        filters = checked_filters(filters, ('instance', 'volume', 'host', 'status', 'kind', 'needs_attention'))
        one_of(filters, 'status', Status)
        for kind in filters['kind'] if isinstance(filters.get('kind'), list) else [filters['kind']] if 'kind' in filters else ():
            one_of({'kind': kind}, 'kind', WORKFLOWS)
        limit, marker = page(limit, marker)
        return self.database.run(lambda tx: views.list_migrations(tx, filters, limit, marker) or views.nothing_of(tx, filters))

    @server.exposed(contract.CONDUCTOR)
    def abort(self, context, migration):
        """Set the abort flag. TooLate after the point of no return and after the end; asked twice it is the same."""
        migration = uuid(migration, 'migration')
        self.engine.handle(migration, Reply(stimulus.Abort(context.user)), context)
        return self.database.run(lambda tx: views.show_migration(tx, migration))

    @server.exposed(contract.CONDUCTOR)
    def force_complete(self, context, migration):
        """Make a running migration converge. NotPossible unless the hypervisor's job is running, HostDown while the source is silent."""
        migration = uuid(migration, 'migration')
        view = self.database.run(lambda tx: views.show_migration(tx, migration))
        if view['kind'] != 'live_migration':
            raise exceptions.NotPossible(f'{migration} is a {view["kind"]}; only a live migration can be forced to converge')
        if view['status'] != Status.RUNNING.value:
            raise exceptions.NotPossible(f'migration {migration} is {view["status"]}, not running')
        source = view['source_host']
        self.requests.usable(source, self.database.run(lambda tx: hosts.get_many(tx, [source])), disabled_too=True)
        if not self.agents.compute.force_complete_live_migration(context, source, migration, view['instance_uuid']):
            raise exceptions.NotPossible(f'{source} has no migration job of {view["instance_name"]} to complete')
        self.engine.remark(migration, context, 'force_complete', 'the guest was paused so that the migration converges')
        return self.database.run(lambda tx: views.show_migration(tx, migration))

    @server.exposed(contract.CONDUCTOR)
    def recover(self, context, migration, assert_dead):
        """Look at a migration now; assert_dead: a host that the caller attests to be off, or None. Answers before the hosts do."""
        migration = uuid(migration, 'migration')
        transition = self.recovery.recover(context, migration, None if assert_dead is None else host_name(assert_dead))
        try:
            return self.database.run(lambda tx: views.show_migration(tx, migration))
        finally:
            if transition is not None:
                later.go_on(self.engine, self.pool, migration, transition)

    @server.exposed(contract.CONDUCTOR)
    def audit(self, context, host):
        """What is on the hosts, or on one, that nobody answers for."""
        return self.inspection.audit(context, None if host is None else host_name(host))

    # --- debts ---

    @server.exposed(contract.CONDUCTOR)
    def debts(self, context, filters, limit, marker):
        """Cleanups that hosts owe, oldest first; those that were written off too."""
        filters = checked_filters(filters, ('host',))
        limit, marker = page(limit, marker)
        return self.database.run(lambda tx: [views.debt_view(r) for r in debts.listing(tx, filters.get('host'), limit, marker)]
                                 or views.nothing_of(tx, filters))

    @server.exposed(contract.CONDUCTOR)
    def debt_write_off(self, context, debt, reason):
        """Give up a cleanup that a silent host owes."""
        return views.debt_view(self.recovery.write_off(context, uuid(debt, 'debt'), text(reason, 'reason', 255)))

    # --- hosts ---

    @server.exposed(contract.CONDUCTOR)
    def hosts(self, context):
        """All hosts."""
        return self.database.run(lambda tx: [views.host_view(r, self.settings.host_down_after) for r in hosts.everyone(tx)])

    @server.exposed(contract.CONDUCTOR)
    def host_show(self, context, host):
        """One host."""
        return self._host(host_name(host))

    @server.exposed(contract.CONDUCTOR)
    def host_disable(self, context, host, reason):
        """No new work for the host; what runs there goes on, and guests may leave."""
        return self._enable(host_name(host), False, text(reason, 'reason', 255))

    @server.exposed(contract.CONDUCTOR)
    def host_enable(self, context, host):
        """Take new work again."""
        return self._enable(host_name(host), True, '')

    def _enable(self, host, enabled, reason):
        if not self.database.run(lambda tx: [kind for kind in AgentKind if hosts.set_enabled(tx, host, enabled, reason, kind)]):
            raise exceptions.HostNotFound(f'there is no host {host}')
        LOG.info('host %s was %s: %s', host, 'enabled' if enabled else 'disabled', reason)
        return self._host(host)

    def _host(self, host):
        rows = self.database.run(lambda tx: hosts.everyone(tx, host))
        if not rows:
            raise exceptions.HostNotFound(f'there is no host {host}')
        return views.host_view(rows[0], self.settings.host_down_after)

    # --- instances ---

    @server.exposed(contract.CONDUCTOR)
    def instances(self, context, filters, limit, marker):
        """Guests, by name."""
        filters = checked_filters(filters, ('host', 'state'))
        one_of(filters, 'state', InstanceState)
        limit, marker = page(limit, marker)
        return self.database.run(lambda tx: [self._instance(r) for r in catalogue.listing(
            tx, filters.get('host'), filters.get('state'), limit, marker)] or views.nothing_of(tx, filters))

    @server.exposed(contract.CONDUCTOR)
    def instance_show(self, context, instance):
        """One guest, by uuid or unique name."""
        instance = text(instance, 'instance')
        return self._instance(self.database.run(lambda tx: catalogue.get(tx, instance)))

    def _instance(self, row):
        return views.instance_view(row, self.settings.host_down_after)

    @server.exposed(contract.CONDUCTOR)
    def instance_create(self, context, host, spec, request_id, start):
        """Make a guest on a host and, unless start is false, start it."""
        facts.check_names(facts.InstanceSpec, spec, 'spec')
        spec = facts.from_wire(facts.InstanceSpec, spec, 'spec')
        return self._accepted(context, self.requests.instance_create(
            context, host_name(host), spec, request_key(request_id), flag(start, 'start')))

    @server.exposed(contract.CONDUCTOR)
    def instance_start(self, context, instance, request_id):
        """Start a guest."""
        return self._accepted(context, self.requests.instance_start(context, text(instance, 'instance'), request_key(request_id)))

    @server.exposed(contract.CONDUCTOR)
    def instance_stop(self, context, instance, request_id, timeout):
        """Stop a guest."""
        return self._accepted(context, self.requests.instance_stop(
            context, text(instance, 'instance'), request_key(request_id), number(timeout, 'timeout', 0, 3600)))

    @server.exposed(contract.CONDUCTOR)
    def instance_delete(self, context, instance, request_id):
        """Delete a stopped guest."""
        return self._accepted(context, self.requests.instance_delete(context, text(instance, 'instance'), request_key(request_id)))

    @server.exposed(contract.CONDUCTOR)
    def instance_forget(self, context, instance, assert_dead):
        """Remove the row of a guest that no host has; assert_dead: names of silent hosts that the caller attests to be off."""
        if not isinstance(assert_dead, list):
            raise exceptions.InvalidRequest('assert_dead must be a list of hosts')
        return self.forgetting.forget(context, text(instance, 'instance'), [host_name(host) for host in assert_dead])

    def _accepted(self, context, asked):
        """Answer at once and go on in another thread."""
        row, transition = asked
        if transition is not None:
            later.go_on(self.engine, self.pool, row.id, transition)
        return views.migration_view(row)


class AgentEndpoint:
    """What agents may call; the contract is `migrator.rpc.contract.AGENT`."""

    target = server.target(contract.AGENT_VERSION, contract.AGENT_NAMESPACE)

    def __init__(self, engine, inventory, payments, pool):
        self.engine = engine
        self.inventory = inventory
        self.payments = payments
        self.pool = pool

    @server.exposed(contract.AGENT)
    def operation_finished(self, context, report):
        """Take an outcome. The acknowledgement is given once the outcome is in the database, not before."""
        report = facts.from_wire(facts.Report, report, 'report')
        if not report.state.finished:
            raise exceptions.InvalidRequest(f'report.state: {report.state} is no end of an operation')
        if not self.payments.finished(report):
            transition = self.engine.operation_finished(report)
            if transition is not None:
                later.go_on(self.engine, self.pool, report.migration_id, transition)
        return {'acknowledged': True}

    @server.exposed(contract.AGENT)
    def heartbeat(self, context, heartbeat):
        """Take a heartbeat."""
        return self.inventory.heartbeat(facts.from_wire(facts.Heartbeat, heartbeat, 'heartbeat'))


# --- arguments, checked ---

def text(value, name, longest=128):
    """Check a short text, which is not of blanks alone."""
    if not isinstance(value, str) or not value.strip() or len(value) > longest or not value.isprintable():
        raise exceptions.InvalidRequest(f'{name} must be a printable text of 1 to {longest} characters, not of blanks alone')
    return value


def uuid(value, name):
    """Check a uuid."""
    if not isinstance(value, str) or not facts.UUID.match(value):
        raise exceptions.InvalidRequest(f'{name} must be a uuid, not {value!r:.60}')
    return value


def host_name(value):
    """Check the name of a host."""
    if not isinstance(value, str) or not facts.HOST.match(value):
        raise exceptions.InvalidRequest(f'{value!r:.60} is not the name of a host')
    return value


def request_key(value):
    """Check a request id; None is allowed: the context's own is taken."""
    return None if value is None else text(value, 'request_id')


def flag(value, name):
    """Check a boolean."""
    if not isinstance(value, bool):
        raise exceptions.InvalidRequest(f'{name} must be true or false')
    return value


def number(value, name, low, high):
    """Check an integer."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise exceptions.InvalidRequest(f'{name} must be a whole number from {low} to {high}')
    return value


def migrate_options(options):
    """Check the options of a live migration; unknown ones are refused, for they would silently do nothing."""
    options = {} if options is None else options
    if not isinstance(options, dict) or not set(options) <= {'bandwidth_mib', 'dry_run'}:
        raise exceptions.InvalidRequest('options may have bandwidth_mib (MiB a second) and dry_run')
    return {'bandwidth_mib': number(options.get('bandwidth_mib', 0), 'bandwidth_mib', 0, 2 ** 30),
            'dry_run': flag(options.get('dry_run', False), 'dry_run')}


def checked_filters(filters, allowed):
    """Check the filters of a list."""
    filters = {} if filters is None else filters
    if not isinstance(filters, dict) or not set(filters) <= set(allowed):
        raise exceptions.InvalidRequest(f'filters may have {", ".join(allowed)}')
    for name, value in filters.items():
        if name == 'needs_attention' and value is not None:
            flag(value, name)
        elif value is not None:     # of kinds there may be several
            for word in value if name == 'kind' and isinstance(value, list) else [value]:
                text(word, name)
    return {k: v for k, v in filters.items() if v}


def one_of(filters, name, words):
    """Check that a filter is one of the words that there are: any other would find nothing, which reads like an answer."""
    if name in filters and filters[name] not in list(words):
        raise exceptions.InvalidRequest(f'{name} must be one of {", ".join(words)}')


def page(limit, marker):
    """Check the paging of a list."""
    limit = MAX_PAGE if limit is None else number(limit, 'limit', 1, MAX_PAGE)
    return limit, None if marker is None else uuid(marker, 'marker')


