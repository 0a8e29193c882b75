"""The receiving end of RPC: servers, and the decorator of every method that may be called from outside."""
import functools

import oslo_messaging
from oslo_log import log
from oslo_messaging import rpc

from migrator import exceptions
from migrator.rpc import context as rpc_context
from migrator.rpc import contract, errors, wire

LOG = log.getLogger(__name__)


def exposed(table):
    """Decorate a method of an endpoint that stands in `table` (contract.COMPUTE, AGENT or CONDUCTOR) under the method's name.

    The request's arguments are checked before the method is entered. Its MigratorErrors reach the caller by name, without a
    traceback here, for they are answers. Anything else is a defect: logged with its traceback, and InternalError to the caller. The
    request's context is current in the thread for the length of the call.
    """
    def decorate(method):
        entry = table[method.__name__]

        @functools.wraps(method)
        def answer(self, context, /, **arguments):  # a caller may send arguments of any name
            try:
                wire.check_arguments(entry, arguments)
                return method(self, context, **arguments)
            except (errors.NoAnswer, errors.NotDelivered) as error:     # of a third party; the caller knows these only of us
                raise exceptions.Unavailable(str(error)) from None
            except (errors.NoSuchMethod, errors.UnsupportedVersion) as error:
                raise exceptions.NotPossible(f'not before all agents are upgraded: {error}') from None
            except exceptions.MigratorError:
                raise
            except Exception as error:
                LOG.exception('%s failed', entry.name)
                raise exceptions.InternalError(f'{entry.name} failed: {type(error).__name__}: {error}') from None
            finally:
                rpc_context.clear()
        return rpc.expose(rpc.expected_exceptions(exceptions.MigratorError)(answer))
    return decorate


def make_server(transport, topic, host, endpoints):
    """Make a server that hears `topic` and `topic`.`host`; start() it, later stop() and wait().

    endpoints: objects with a `target` (oslo_messaging.Target of namespace and version, see `target`) and exposed methods; nothing
    else of them can be called. start() blocks until the broker can be reached.
    """
    where = oslo_messaging.Target(exchange=contract.CONTROL_EXCHANGE, topic=topic, server=host)
    serving = oslo_messaging.get_rpc_server(transport.messaging, where, list(endpoints), serializer=rpc_context.ContextSerializer(),
                                            access_policy=rpc.ExplicitRPCAccessPolicy)
    dispatch = serving.dispatcher.dispatch

    def dispatch_or_refuse(incoming):
        try:
            return dispatch(incoming)
        except rpc.RPCDispatcherError as error:  # no such method or version: the caller's mistake, worth a line and no traceback
            LOG.warning('request refused: %s', error)
            raise rpc.ExpectedException() from None
    serving.dispatcher.dispatch = dispatch_or_refuse
    return serving


def finish(serving):
    """Hear nothing more, and wait until what was heard is answered; the rest is left in the queue for others, or for our successor."""
    serving.stop()
    serving.wait()


def target(version, namespace=None):
    """Make the `target` of an endpoint class: the version that it speaks, in its namespace."""
    return oslo_messaging.Target(version=version, namespace=namespace)
