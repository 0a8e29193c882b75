"""The way to the broker, and the client that every versioned client class is built on.

`rabbit://` is what deployments use; `fake://` joins any number of services in one process through memory. Messaging has one
configuration per process, oslo.config's global one, because oslo.messaging's client looks for some options only there.
"""
import threading

import amqp.exceptions
import kombu.exceptions
import oslo_messaging
from oslo_config import cfg
from oslo_log import log
from oslo_messaging import opts, rpc

from migrator import concurrency, exceptions
from migrator.rpc import context as rpc_context
from migrator.rpc import contract, errors, wire

LOG = log.getLogger(__name__)

REMOTE_MODULES = ['migrator.exceptions', 'oslo_messaging.rpc.dispatcher']

#: Seconds that the first request of a process waits for a connection.
CONNECT_SECONDS = 5.0

#: Where the URL of the broker belongs if no file of configuration was found.
DEFAULT_FILE = '/etc/migrator/migrator.conf'

#: Attempts to hand a message over again after a broken connection. None would try for ever.
RETRIES = 1

#: Defaults of [oslo_messaging_rabbit] that differ from the library's, and why.
RABBIT_DEFAULTS = {
    'rabbit_interval_max': 5,           # 30: after an outage of the broker an agent might stay deaf for half a minute longer
    'heartbeat_timeout_threshold': 20,  # 60: a connection to a broker that vanished without a word goes unnoticed for so long
}

#: What a connection that cannot be made raises: before anything was sent.
_NOT_CONNECTED = (kombu.exceptions.KombuError, amqp.exceptions.AMQPError)

_NAMED = {'NoSuchMethod': errors.NoSuchMethod, 'UnsupportedVersion': errors.UnsupportedVersion}


class Transport:
    """One process's connections to the broker, shared by its servers and clients."""

    def __init__(self, messaging, broker=''):
        """broker: where it is, in words for people, without a password."""
        self.messaging = messaging
        self.broker = broker
        self._in_memory = messaging._driver.__class__.__module__.endswith('impl_fake')
        self.closed = False
        self._ready = self._in_memory
        self._probe = None
        self._lock = threading.Lock()

    def connect(self, timeout=CONNECT_SECONDS):
        """Make sure that requests can be sent and answers heard; at once when that was so before.

        oslo.messaging would wait for ever for the connection that brings the answers; so the first request is preceded by one
        that nobody can get, made in a thread of its own. Raises NotDelivered after `timeout` seconds.
        """
        if self._ready:
            return
        with self._lock:
            if self._probe is None:
                self._probe = concurrency.spawn(self._try)
            probe = self._probe
        try:
            probe.wait(timeout)
        except TimeoutError:
            raise errors.NotDelivered(f'the message broker{self.broker} cannot be reached (tried for {timeout:g} s)') from None
        except (oslo_messaging.MessagingException, OSError, *_NOT_CONNECTED) as error:
            self._probe = None
            raise errors.NotDelivered(f'the message broker cannot be used: {_first_line(error)}') from None

    def _try(self):
        nobody = oslo_messaging.Target(exchange=contract.CONTROL_EXCHANGE, topic=contract.TOPIC_CONDUCTOR, server='nobody')
        client = oslo_messaging.get_rpc_client(self.messaging, nobody, timeout=CONNECT_SECONDS, retry=RETRIES)
        try:
            client.prepare(transport_options=oslo_messaging.TransportOptions(at_least_once=True)).call({}, 'probe')
        except oslo_messaging.MessageUndeliverable:
            LOG.debug('connected to the broker')
        self._ready = True

    def close(self):
        """Let go of the connections. A request that still waits for its answer then raises NoAnswer."""
        self.closed = True
        if not self._in_memory:  # there it would drop the queues of everybody else in the process
            self.messaging.cleanup()


def get_transport(conf=cfg.CONF, url=None):
    """Make the process's Transport; does not connect yet.

    url: where the broker is; None takes `transport_url` of `conf`. Raises InvalidRequest for an URL that cannot be used.
    """
    oslo_messaging.set_transport_defaults(contract.CONTROL_EXCHANGE)
    for group, options in opts.list_opts():
        cfg.CONF.register_opts(options, group)
        if conf is not cfg.CONF and group is None:
            conf.register_opts(options)
    for name, value in RABBIT_DEFAULTS.items():
        cfg.CONF.set_default(name, value, group='oslo_messaging_rabbit')
    url = url or conf.transport_url
    try:
        messaging = oslo_messaging.get_rpc_transport(cfg.CONF, url, allowed_remote_exmods=REMOTE_MODULES)
        return Transport(messaging, _place(oslo_messaging.TransportURL.parse(cfg.CONF, url).hosts, getattr(conf, 'config_file', None)))
    except (oslo_messaging.InvalidTransportURL, oslo_messaging.DriverLoadFailure) as error:
        raise exceptions.InvalidRequest(f'transport_url cannot be used: {_first_line(error)}') from None


def _place(hosts, files):
    """Say where the broker is, or that nobody has said so. hosts: of the URL; their names and ports only. files: of the configuration."""
    named = [host.hostname + (f':{host.port}' if host.port else '') for host in hosts if host.hostname]
    if named:
        return f' at {", ".join(named)}'
    return f' at localhost (no transport_url is set in [DEFAULT] of {", ".join(files or [DEFAULT_FILE])})'


class Client:
    """Calls to one topic, with every failure translated.

    topic, namespace: whom. table: the contract's methods. version_cap: gives the highest version to send, '' for no cap. broken: class of
    error for an answer of the other side that this side does not know.
    """

    def __init__(self, transport, topic, table, version, version_cap=str, namespace=None, broken=exceptions.MigratorError):
        self.transport = transport
        self._table = table
        self._version_cap = version_cap
        self._broken = broken
        where = oslo_messaging.Target(exchange=contract.CONTROL_EXCHANGE, topic=topic, version=version, namespace=namespace)
        self._client = oslo_messaging.get_rpc_client(transport.messaging, where, retry=RETRIES,
                                                     serializer=rpc_context.ContextSerializer())

    def call(self, context, name, version=None, server=None, patience=None, **arguments):
        """Send the request `name` and wait for its answer, for as long as the contract says.

        server: one host; None is any that hears the topic. version: None is the lowest that has the method and the arguments. Arguments
        that are newer than the cap are left out; a method that is newer raises UnsupportedVersion. patience: seconds to wait for the
        answer, if not the contract's; a request that nobody has taken by then is dropped by the broker. Raises the other side's
        MigratorError by class, NoAnswer, NotDelivered, NoSuchMethod, UnsupportedVersion; and, before anything is sent, InvalidRequest or
        PayloadTooLarge.
        """
        method = self._table[name]
        wire.check_arguments(method, arguments)
        cap = self._version_cap()
        arguments, needed = method.fitting(arguments, cap)
        where = {'version': version or needed, 'version_cap': cap or None} | ({} if server is None else {'server': server})
        self.transport.connect()
        timeout = method.timeout if patience is None else patience
        prepared = self._client.prepare(timeout=timeout, transport_options=oslo_messaging.TransportOptions(at_least_once=True),
                                        **where)
        whom = server or 'the conductor'
        try:
            return prepared.call(context, name, **arguments)
        except oslo_messaging.MessageUndeliverable:
            raise errors.NotDelivered(f'{whom} has not been listening: {name} was not delivered') from None
        except oslo_messaging.MessagingTimeout:
            raise errors.NoAnswer(f'{whom} did not answer {name} within {timeout:g} s') from None
        except oslo_messaging.MessageDeliveryFailure as error:
            raise errors.NoAnswer(f'the connection to the broker broke during {name} to {whom}: {_first_line(error)}') from None
        except rpc.RPCVersionCapError as error:
            raise errors.UnsupportedVersion(_first_line(error)) from None
        except rpc.RemoteError as error:
            raise self._broken(f'{whom} failed {name}: {error.exc_type}: {error.value}') from None
        except _NOT_CONNECTED as error:
            raise errors.NotDelivered(f'the message broker cannot be reached: {_first_line(error)}') from None
        except OSError as error:  # of ours or of the other side: nobody knows
            raise errors.NoAnswer(f'{name} to {whom} broke off: {_first_line(error)}') from None
        except Exception as error:  # noqa: BLE001 - whatever the other side raised, rebuilt
            if self.transport.closed:   # oslo.messaging stumbles over what is no longer there
                raise errors.NoAnswer(f'this process closed its connection while it waited for the answer of {whom} to {name}') from None
            raise self._translate(error, whom, name) from None

    def _translate(self, error, whom, name):
        """Make our own error of what oslo.messaging rebuilt: a subclass named *_Remote whose text holds the other side's traceback."""
        kind = type(error).__name__.removesuffix('_Remote')
        words = str(error.args[0]) if error.args else _first_line(error)
        if kind in _NAMED:
            return _NAMED[kind](f'{whom} does not know {words.rpartition("does not support RPC ")[2]}')
        if isinstance(error, exceptions.MigratorError):
            return getattr(exceptions, kind)(words)
        return self._broken(f'{whom} failed {name}: {kind}: {_first_line(error)}')


def _first_line(error):
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
