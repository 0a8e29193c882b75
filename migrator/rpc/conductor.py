"""What others ask of the conductors: `ConductorAPI` for API tiers and the command line, `AgentToConductorAPI` for agents.

Requests go to whichever conductor is free. An API tier needs no more than this:

    api = ConductorAPI.from_url('rabbit://user:password@broker:5672/')
    migration = api.live_migrate('web-1', 'host-b')
    print(api.show(migration['id'])['status'])
"""
import uuid

from oslo_config import cfg

from migrator import config, exceptions
from migrator.rpc import context as rpc_context
from migrator.rpc import contract, errors, facts
from migrator.rpc import transport as rpc_transport


class ConductorAPI:
    """Client of the conductors. Arguments and results are plain JSON values.

    Version history:

    * 1.0 - the first release: migrations, recover, audit, debts, hosts, instances, backends, volumes.

    Every method raises the conductor's errors by class (`migrator.exceptions`), and Unavailable if no conductor answers.
    Reads may be repeated at will. What changes something takes a request_id, and a repetition with the same one returns what the first
    request made; without one, each call makes up its own, and names it in the error if the answer is lost.
    """

    def __init__(self, conf=cfg.CONF, transport=None, user=''):
        """Connect on first use. conf: with migrator's options; transport: None makes one from conf; user: who asks, for the record."""
        self._transport = transport or rpc_transport.get_transport(conf)
        self._user = user
        self._client = rpc_transport.Client(self._transport, contract.TOPIC_CONDUCTOR, contract.CONDUCTOR, contract.CONDUCTOR_VERSION,
                                            lambda: conf.upgrade_levels.conductor)

    @classmethod
    def from_url(cls, transport_url, user=''):
        """Make a client from nothing but the broker's URL."""
        conf = config.register(cfg.ConfigOpts())
        conf([], project='migrator', default_config_files=[], default_config_dirs=[])
        return cls(conf, rpc_transport.get_transport(conf, transport_url), user)

    def close(self):
        """Let go of the connection to the broker."""
        self._transport.close()

    # --- migrations ---

    def live_migrate(self, instance, destination_host, request_id=None, options=None):
        """Ask for a live migration of `instance` (uuid or unique name). Returns the migration, which goes on by itself.

        options: {'bandwidth_mib': MiB a second, 'dry_run': bool}. A dry run returns {'possible', 'reasons', …} and changes nothing.
        """
        return self._change('live_migrate', request_id, instance=instance, destination_host=destination_host, options=options or {})

    def show(self, migration):
        """Give one migration with its `events`."""
        return self._call('show', migration=migration)

    def list(self, filters=None, limit=100, marker=None):
        """List migrations, newest first. marker: id of the last one seen.

        filters: instance, volume, host, status, kind (one or a list), needs_attention.

        HostNotFound, InstanceNotFound and VolumeNotFound, if the list is empty because what is named was never there.
        """
        return self._call('list', filters=filters or {}, limit=limit, marker=marker)

    def abort(self, migration):
        """Abort a migration; TooLate after its point of no return. Returns the migration, which then undoes what it did."""
        return self._call('abort', migration=migration)

    def force_complete(self, migration):
        """Make a running migration converge at the price of downtime. Returns the migration."""
        return self._call('force_complete', migration=migration)

    def recover(self, migration, assert_dead=None):
        """Have the hosts of a migration asked now where its guest is, and whatever follows begun. Repeatable.

        Returns the migration as soon as that is written down, and not when the hosts have answered, for a silent one is waited for. When
        it stands in needs_operator and its `looked_at` is at least the `updated_at` that is returned here, they have been asked in vain.

        assert_dead: name of one of its hosts, of which the caller attests that it is off: nothing runs there. That is recorded with its
        author, and counts only while the host is silent, for this migration alone. HostUp if the host is still heard of, NotPossible if
        the migration does not concern it, TooLate if the migration has ended.
        """
        return self._call('recover', migration=migration, assert_dead=assert_dead)

    def audit(self, host=None):
        """Compare what is on the hosts with the database. host: only this one. Takes as long as the slowest host; changes nothing.

        Returns {'findings': [{kind, host, resource, what, todo}], 'debts': [{id, host, instance_uuid, action, reason}],
        'not_audited': [{host, why}], 'audited': [host], 'left_off': how many findings are not told}.
        """
        return self._call('audit', host=host)

    # --- debts ---

    def debts(self, filters=None, limit=1000, marker=None):
        """List cleanups that hosts owe, oldest first, those that were written off too. filters: host. marker: id of the last one seen."""
        return self._call('debts', filters=filters or {}, limit=limit, marker=marker)

    def debt_write_off(self, debt, reason):
        """Give up a cleanup whose host is silent and will not come back; recorded with its author and `reason`. Returns the debt.

        Repeatable; the first reason holds. DebtNotFound, TooLate if it is paid, HostUp if the host is heard of.
        """
        return self._call('debt_write_off', debt=debt, reason=reason)

    # --- hosts ---

    def hosts(self):
        """List all hosts."""
        return self._call('hosts')

    def host_show(self, host):
        """Give one host."""
        return self._call('host_show', host=host)

    def host_disable(self, host, reason):
        """Give the host no new work, for `reason`. Returns the host."""
        return self._call('host_disable', host=host, reason=reason)

    def host_enable(self, host):
        """Give the host work again. Returns the host."""
        return self._call('host_enable', host=host)

    # --- instances ---

    def instances(self, filters=None, limit=1000, marker=None):
        """List instances by name. filters: host, state. HostNotFound, if the list is empty because there is no such host."""
        return self._call('instances', filters=filters or {}, limit=limit, marker=marker)

    def instance_show(self, instance):
        """Give one instance, by uuid or unique name."""
        return self._call('instance_show', instance=instance)

    def instance_create(self, host, spec, request_id=None, start=True):
        """Have an instance made of `spec` (facts.InstanceSpec as a dict) on `host`. Returns a migration of kind instance_create."""
        return self._change('instance_create', request_id, host=host, spec=spec, start=start)

    def instance_start(self, instance, request_id=None):
        """Have an instance started. Returns a migration of kind instance_start."""
        return self._change('instance_start', request_id, instance=instance)

    def instance_stop(self, instance, request_id=None, timeout=60):
        """Have an instance shut down, its power cut after `timeout` seconds. Returns a migration of kind instance_stop."""
        return self._change('instance_stop', request_id, instance=instance, timeout=timeout)

    def instance_delete(self, instance, request_id=None):
        """Have a stopped instance and its disks removed. Returns a migration of kind instance_delete."""
        return self._change('instance_delete', request_id, instance=instance)

    def instance_forget(self, instance, assert_dead=()):
        """Have the row of an instance removed that no host has any more, after every host was asked. Nothing is done at a host.

        assert_dead: names of silent hosts of which the caller attests that they are off; the others must answer. Takes as long as the
        slowest host. Returns the instance as it was, with 'asked', 'attested' and 'not_asked', which are names of hosts. Repeated, it is
        InstanceNotFound. NotPossible if a host has something of it or does not answer, HostDown if one is silent, HostUp if
        an attested one is not, ResourceLocked and DebtOutstanding while work or a cleanup names it.
        """
        return self._call('instance_forget', instance=instance, assert_dead=list(assert_dead))

    # --- backends ---

    def backends(self):
        """List all backends of all volume agents, by name (host@backend), each with its pools."""
        return self._call('backends')

    def backend_show(self, backend):
        """Give one backend, by its name host@backend."""
        return self._call('backend_show', backend=backend)

    # --- volumes ---

    def volumes(self, filters=None, limit=1000, marker=None):
        """List volumes by name. filters: backend (host@backend), type, status. marker: id of the last one seen."""
        return self._call('volumes', filters=filters or {}, limit=limit, marker=marker)

    def volume_show(self, volume):
        """Give one volume, by id or unique name, with its `attachments`."""
        return self._call('volume_show', volume=volume)

    def volume_create(self, name, size, pool='', type='', multiattach=False, request_id=None):  # noqa: A002 (the word that users have)
        """Have a volume made. size: bytes. pool: host@backend#pool, host@backend, or '' for the one with the most room that serves `type`.

        multiattach: it may be attached to several instances at once, and cannot be migrated. Returns a migration of kind volume_create.
        """
        spec = {'name': name, 'size': size, 'pool': pool, 'type': type, 'multiattach': multiattach}
        return self._change('volume_create', request_id, spec=spec)

    def volume_delete(self, volume, request_id=None):
        """Have a volume deleted that nobody has. Returns a migration of kind volume_delete."""
        return self._change('volume_delete', request_id, volume=volume)

    def volume_extend(self, volume, size, request_id=None):
        """Have an available volume made larger. size: bytes in all. Returns a migration of kind volume_extend."""
        return self._change('volume_extend', request_id, volume=volume, size=size)

    def volume_attach(self, volume, instance, options=None, request_id=None):
        """Have an instance given a volume. options: {'target': 'vdb', 'read_only': bool}. Returns a migration of kind volume_attach."""
        return self._change('volume_attach', request_id, volume=volume, instance=instance, options=options or {})

    def volume_detach(self, volume, instance, options=None, request_id=None):
        """Have a volume taken from an instance. Returns a migration of kind volume_detach.

        options: {'assert_dead': true}: the caller attests that the instance's host is off. It is not asked, whoever is connected to the
        volume is cut off, and the migration is of kind volume_cut_off. HostUp if the host is still heard of.
        """
        return self._change('volume_detach', request_id, volume=volume, instance=instance, options=options or {})

    def set_bandwidth(self, migration, bytes_per_second):
        """Change the bandwidth limit of a volume's copy or mirror, of one that runs at once; 0 is no limit. Returns the migration.

        Repeatable. An array that moves a volume by itself is not limited.

        NotPossible for work that copies no volume, TooLate for a migration that has ended.
        """
        return self._call('set_bandwidth', migration=migration, bytes_per_second=bytes_per_second)

    def volume_migrate(self, volume, destination, request_id=None, options=None):
        """Ask for the migration of a volume to `destination` (host@backend#pool, or host@backend). Returns the migration.

        options: {'force_host_copy': no driver is asked, 'lock_volume': not attachable before the end, 'new_type': the type that it is to
        have, 'verification': 'sampled' or 'full', 'bandwidth': bytes a second, 'dry_run': bool}. A dry run returns 'ways'.
        """
        return self._change('volume_migrate', request_id, volume=volume, destination=destination, options=options or {})

    def _change(self, name, request_id, **arguments):
        request_id = request_id or str(uuid.uuid4())
        return self._call(name, hint=f'; whether it was accepted is not known, repeat it with request id {request_id}',
                          request_id=request_id, **arguments)

    def _call(self, name, hint='', **arguments):
        context = rpc_context.MigratorContext(request_id=arguments.get('request_id'), user=self._user, overwrite=False)
        try:
            return self._client.call(context, name, **arguments)
        except errors.NotDelivered as error:
            raise exceptions.Unavailable(f'no conductor can be asked: {error}') from None
        except errors.NoAnswer as error:
            raise exceptions.Unavailable(f'no conductor answered: {error}{hint}') from None


#: Least seconds that an agent waits for the answer to a heartbeat, however short its interval: a busy database is not a dead conductor.
LEAST_PATIENCE = 1.0


def heartbeat_patience(interval):
    """Give the seconds after which a heartbeat without an answer is taken for lost and the next one is sent. interval: between two.

    A conductor that dies takes the heartbeats that it holds along. The next one must come well before the host looks down, so the agent
    waits no longer than until that one is due. An answer that comes later does no harm: the heartbeat has counted, and the next one
    says all that it said.
    """
    return min(contract.AGENT['heartbeat'].timeout, max(LEAST_PATIENCE, interval))


class AgentToConductorAPI:
    """What agents tell the conductors.

    Version history:

    * 1.0 - operation_finished, heartbeat, volume_heartbeat.

    All raise errors.NoAnswer, errors.NotDelivered and the conductor's own errors; all may be repeated.
    """

    def __init__(self, conf, transport, interval=None):
        """interval: seconds between two heartbeats; None is that of compute agents."""
        self._client = rpc_transport.Client(transport, contract.TOPIC_CONDUCTOR, contract.AGENT, contract.AGENT_VERSION,
                                            lambda: conf.upgrade_levels.conductor, namespace=contract.AGENT_NAMESPACE)
        self._patience = heartbeat_patience(interval or conf.compute.heartbeat_interval)

    def operation_finished(self, context, report):
        """Tell the outcome of an operation (facts.Report); returning means that the conductor has recorded it."""
        self._client.call(context, 'operation_finished', report=facts.to_wire(report))

    def heartbeat(self, context, heartbeat):
        """Tell that the agent lives (facts.Heartbeat). Returns {'resync': bool}: the conductor wants the whole inventory next."""
        return self._client.call(context, 'heartbeat', patience=self._patience, heartbeat=facts.to_wire(heartbeat)) or {}

    def volume_heartbeat(self, context, heartbeat):
        """Tell that a volume agent lives (volume_facts.VolumeHeartbeat), with all that it has. Returns {'ended': [id, ...], 'unknown'}:
        which of the migrations in `copies` have ended, so that nothing need be kept for them, and which there are not (any more)."""
        return self._client.call(context, 'volume_heartbeat', patience=self._patience, heartbeat=facts.to_wire(heartbeat)) or {}
