"""A message broker in memory for one test, which does what tests need of RabbitMQ and what oslo.messaging's fake one does not.

Messages are delivered at once instead of every 50 ms; a message that nobody hears is returned to its sender instead of being kept for
whoever listens next; brokers know nothing of one another; and one process's connection can be cut, as by a broken cable. What it
keeps of oslo.messaging's fake is that both ends go through the real servers, clients, serializers and dispatchers.
"""
import queue
import threading

import oslo_messaging
from oslo_messaging._drivers import base, impl_fake

from migrator.rpc import contract
from migrator.rpc import transport as rpc_transport


class Broker:
    """Queues by (topic, server), server '' for those that any server of the topic may take."""

    def __init__(self):
        self.changed = threading.Condition()
        self.waiting = {}       # (topic, server) -> messages
        self.heard = []         # listeners
        self.sent = []          # (sender, topic, server, method), for tests that count messages
        self.lost = set()       # (sender, method) of messages that are lost on the way
        self.traps = {}         # method -> what is called with the sender's name instead of delivering the next such message
        self._cut = set()       # names of connections

    def transport(self, name, conf):
        """Give the process called `name` a connection: a migrator.rpc.transport.Transport."""
        made = rpc_transport.get_transport(conf, 'fake://')
        made.messaging._driver = Connection(self, name, made.messaging._driver)
        return made

    def cut(self, name):
        """Nothing reaches or leaves the process any more; what it sends fails, what is sent to it is returned."""
        with self.changed:
            self._cut.add(name)

    def mend(self, name):
        """Take a cut back."""
        with self.changed:
            self._cut.discard(name)
            self.changed.notify_all()

    def is_cut(self, name):
        """True while the process is cut off."""
        return name in self._cut

    def deliver(self, sender, target, context, message, replies):
        """Take a message. Raises MessageUndeliverable if nobody can hear it."""
        key, method = (target.topic, target.server or ''), message.get('method', '')
        trap = self.traps.pop(method, None)
        if trap is not None:
            trap(sender)
        if trap is not None or (sender, method) in self.lost:
            raise oslo_messaging.MessageDeliveryFailure(f'{method} was lost')
        with self.changed:
            self.sent.append((sender, *key, method))
            if not any(key in listener.keys and not self.is_cut(listener.name) for listener in self.heard):
                raise oslo_messaging.MessageUndeliverable(f'nobody hears {key}', '', '', '')
            self.waiting.setdefault(key, []).append((context, message, replies))
            self.changed.notify_all()


class Connection(impl_fake.FakeDriver):
    """One process's connection."""

    def __init__(self, broker, name, original):
        super().__init__(original.conf, original._url, original._default_exchange, original._allowed_remote_exmods)
        self._broker = broker
        self._name = name

    def send(self, target, ctxt, message, wait_for_reply=None, timeout=None, call_monitor_timeout=None, retry=None,
             transport_options=None):
        """Send, and wait for the answer if one is wanted."""
        self._check_serialize(message)
        if self._broker.is_cut(self._name):
            raise oslo_messaging.MessageDeliveryFailure('the connection is cut')
        replies = queue.Queue()
        self._broker.deliver(self._name, target, ctxt, message, replies if wait_for_reply else None)
        if not wait_for_reply:
            return None
        try:
            reply, failure = replies.get(timeout=timeout)
        except queue.Empty:
            raise oslo_messaging.MessagingTimeout(f'no reply on topic {target.topic}') from None
        if self._broker.is_cut(self._name):
            raise oslo_messaging.MessageDeliveryFailure('the connection is cut')
        if failure:
            raise failure
        return reply

    def listen(self, target, batch_size, batch_timeout):
        """Hear a topic."""
        return base.PollStyleListenerAdapter(Listener(self._broker, self._name, target), batch_size, batch_timeout)

    def cleanup(self):
        """Nothing is shared with other brokers, so nothing is left."""


class Listener(base.PollStyleListener):
    """One server's ear."""

    def __init__(self, broker, name, target):
        super().__init__()
        self.name = name
        self.keys = ((target.topic, target.server), (target.topic, ''))
        self._broker = broker
        with broker.changed:
            broker.heard.append(self)

    @base.batch_poll_helper
    def poll(self, timeout=None):
        """Give the next message, or None after `timeout` seconds or at the end."""
        with self._broker.changed:
            self._broker.changed.wait_for(lambda: self not in self._broker.heard or self._next() is not None, timeout)
            key = self._next()
            if key is None or self not in self._broker.heard:
                return None
            context, message, replies = self._broker.waiting[key].pop(0)
        return impl_fake.FakeIncomingMessage(context, message, replies, None)

    def _next(self):
        if self._broker.is_cut(self.name):
            return None
        return next((key for key in self.keys if self._broker.waiting.get(key)), None)

    def stop(self):
        """Hear no more; what nobody else may take is lost with us, as an exclusive queue is."""
        with self._broker.changed:
            if self in self._broker.heard:
                self._broker.heard.remove(self)
            if not any(self.keys[0] in other.keys for other in self._broker.heard):
                self._broker.waiting.pop(self.keys[0], None)
            self._broker.changed.notify_all()


def agent_to_agent(broker):
    """Name what one compute agent sent to another: nothing, ever."""
    return [sent for sent in broker.sent if sent[1] == contract.TOPIC_COMPUTE and not sent[0].startswith('conductor')]
