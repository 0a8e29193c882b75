"""What services say to each other, told by the broker itself: RabbitMQ's firehose, decoded.

RabbitMQ can publish a copy of every message that it takes to the exchange `amq.rabbitmq.trace`, with the connection that it came by and
the queues that it goes to. `Trace` switches that on, collects the copies, and opens oslo.messaging's envelope. Who stands behind a
connection, and who hears a queue, is asked of the broker too, so that nothing here rests on what the services say of themselves but
the name that oslo.messaging gives to a connection (program, process id, a random part).
"""
import collections
import dataclasses
import json
import os
import subprocess
import threading
import urllib.parse
import uuid

import kombu

from tests.lab import processes

FIREHOSE = 'amq.rabbitmq.trace'
CONTEXT = '_context_'
HEARTBEAT = 'heartbeat'


@dataclasses.dataclass(frozen=True)
class Message:
    """One message as the broker took it.

    connection: its name, `address:port -> address:port` as the broker sees it. queues: where it went. kind: 'request', 'reply', or 'other'
    for what is no envelope of oslo.messaging. method, namespace, context: of a request. reply_queue: where its answer is to go.
    key: joins a reply to its request.
    """

    connection: str
    exchange: str
    routing_key: str
    queues: tuple[str, ...] = ()
    kind: str = 'other'
    method: str = ''
    namespace: str = ''
    key: str = ''
    reply_queue: str = ''
    context: dict = dataclasses.field(default_factory=dict)

    @property
    def peer(self):
        """IP address of the publisher."""
        return self.connection.partition(' -> ')[0].rpartition(':')[0].strip('[]')


def decode(routing_key, headers, body):
    """Turn one copy from the firehose into a Message; None for copies of deliveries.

    routing_key: of the copy, `publish.EXCHANGE` or `deliver.QUEUE`. headers: of the copy. body: of the message, bytes or text.
    """
    if not routing_key.startswith('publish.'):
        return None
    message = Message(connection=headers['connection'], exchange=headers['exchange_name'], routing_key=headers['routing_keys'][0],
                      queues=tuple(headers.get('routed_queues', ())))
    try:
        envelope = json.loads(body)
        content = json.loads(envelope['oslo.message']) if 'oslo.message' in envelope else envelope
    except (ValueError, TypeError):
        return message
    if not isinstance(content, dict):
        return message
    if 'method' in content:
        context = {name[len(CONTEXT):]: value for name, value in content.items() if name.startswith(CONTEXT)}
        return dataclasses.replace(message, kind='request', method=content['method'], namespace=content.get('namespace') or '',
                                   key=content.get('_msg_id', ''), reply_queue=content.get('_reply_q', ''), context=context)
    if '_msg_id' in content and 'result' in content:
        return dataclasses.replace(message, kind='reply', key=content['_msg_id'])
    return message


def with_replies(messages):
    """Pair every message with the request that it belongs to: a request with itself, a reply with what it answers, else None."""
    asked = {m.key: m for m in messages if m.kind == 'request' and m.key}
    return [(m, m if m.kind == 'request' else asked.get(m.key) if m.kind == 'reply' else None) for m in messages]


def belonging(messages, *ids):
    """Give the messages that a migration cost: requests whose context has one of the ids, and their replies; no heartbeats.

    ids: the migration's id and the id of the request for it.
    """
    return [m for m, request in with_replies(messages)
            if request and request.method != HEARTBEAT and ids_of(request) & set(ids)]


def ids_of(request):
    """Give the ids that a request's context names."""
    return {request.context.get(name) for name in ('request_id', 'migration_id')} - {'', None}


def unanswered(messages):
    """Give the requests that no reply was seen of."""
    replied = {m.key for m in messages if m.kind == 'reply'}
    return [m for m in messages if m.kind == 'request' and m.key and m.key not in replied]


def table(messages):
    """Count messages by method. Returns lines of text, the sum at the end."""
    count = collections.Counter()
    for message, request in with_replies(messages):
        count[request.method if request else '(unknown)', message.kind] += 1
    methods = dict.fromkeys(method for method, _ in count)
    lines = [f'{"method":<40} {"requests":>8} {"replies":>8}']
    lines += [f'{method:<40} {count[method, "request"]:>8} {count[method, "reply"]:>8}' for method in methods]
    return [*lines, f'{"messages":<40} {sum(count.values()):>17}']


class Control:
    """rabbitmqctl for a broker that runs below a process of ours, in whatever namespaces and with whatever cookie."""

    def __init__(self, pid):
        """pid: an ancestor of the broker. LabError if there is no broker below it."""
        found = [p for p in [pid, *processes.descendants(pid)] if os.path.basename((processes.arguments(p) or [''])[0]) == 'beam.smp']
        if not found:
            raise processes.LabError(f'no RabbitMQ runs below process {pid}')
        self._pid = found[0]
        with open(f'/proc/{self._pid}/environ', 'rb') as file:
            entries = file.read().decode().split('\0')
        self._environment = dict(entry.split('=', 1) for entry in entries if '=' in entry)

    def __call__(self, *words):
        """Run rabbitmqctl with these words; returns its output. LabError with its words if it fails."""
        foreign = any(os.readlink(f'/proc/{self._pid}/ns/{kind}') != os.readlink(f'/proc/self/ns/{kind}') for kind in ('pid', 'net', 'mnt'))
        inside = ['nsenter', '--target', str(self._pid), '--net', '--mount', '--pid', '--ipc', '--'] if foreign else []
        node = self._environment['RABBITMQ_NODENAME']
        done = subprocess.run([*inside, 'rabbitmqctl', '--quiet', '--node', node, *words], capture_output=True, text=True, timeout=60,
                              env=self._environment, cwd='/')
        if done.returncode:
            raise processes.LabError(f'rabbitmqctl {words[0]}: {(done.stderr or done.stdout).strip()[-1000:]}')
        return done.stdout

    def listing(self, *words):
        """As a call, for what lists: the rows as dicts."""
        return json.loads(self(*words, '--formatter', 'json'))


class Trace:
    """Collects what a virtual host's services say while it is open. A context manager.

    url: a transport_url of that virtual host. control: a Control of its broker.
    """

    def __init__(self, url, control):
        self._url, self._control = 'amqp' + url.removeprefix('rabbit'), control
        self._vhost = urllib.parse.unquote(urllib.parse.urlsplit(url).path[1:]) or '/'
        self._messages = []
        self._markers = set()
        self._arrived = threading.Condition()
        self._stop = threading.Event()

    def __enter__(self):
        self._control('trace_on', '--vhost', self._vhost)
        self._connection = kombu.Connection(self._url, connect_timeout=10)
        channel = self._connection.channel()
        exchange = kombu.Exchange(FIREHOSE, type='topic', passive=True)
        queue = kombu.Queue(f'trace-{uuid.uuid4()}', exchange, routing_key='publish.#', exclusive=True, auto_delete=True, durable=False)
        consumer = kombu.Consumer(channel, [queue], on_message=self._take, no_ack=True, accept=None)
        consumer.consume()
        self._thread = threading.Thread(target=self._collect, name='trace', daemon=True)
        self._thread.start()
        self.settle()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join(10)
        self._connection.release()
        self._control('trace_off', '--vhost', self._vhost)

    def _collect(self):
        while not self._stop.is_set():
            try:
                self._connection.drain_events(timeout=0.2)
            except TimeoutError:
                continue

    def _take(self, copy):
        message = decode(copy.delivery_info['routing_key'], copy.headers, copy.body)
        if message is None:
            return
        with self._arrived:
            if message.routing_key in self._markers:
                self._markers.discard(message.routing_key)
            else:
                self._messages.append(message)
            self._arrived.notify_all()

    def settle(self, timeout=20):
        """Wait until all that was published before this call has been told. LabError if that takes longer than `timeout` seconds."""
        marker = f'marker-{uuid.uuid4()}'
        with self._arrived:
            self._markers.add(marker)
        with kombu.Connection(self._url) as connection:
            connection.Producer().publish('', routing_key=marker)
        with self._arrived:
            if not self._arrived.wait_for(lambda: marker not in self._markers, timeout):
                raise processes.LabError('the broker does not tell what it was told')

    def messages(self, start=0):
        """Give what was told so far, from the `start`th message on."""
        with self._arrived:
            return self._messages[start:]

    def wait_answered(self, start=0, ids=(), timeout=20):
        """Wait until every request from the `start`th message on has its reply, heartbeats apart; returns the messages from there on.

        ids: only requests whose context names one of them are waited for. LabError, naming those without, after `timeout` seconds.
        """
        def missing():
            return [m for m in unanswered(self._messages[start:])
                    if m.method != HEARTBEAT and m.queues and (not ids or ids_of(m) & set(ids))]
        self.settle()
        with self._arrived:
            if not self._arrived.wait_for(lambda: not missing(), timeout):
                raise processes.LabError(f'without a reply: {[m.method for m in missing()]}')
            return self._messages[start:]

    # --- who is who ---

    def publishers(self):
        """Ask the broker for its present connections; returns connection -> process id that oslo.messaging gave, 0 if none did."""
        rows = self._control.listing('list_connections', 'name', 'client_properties')
        return {row['name']: process_id(dict(_pairs(row['client_properties']))) for row in rows}

    def hearers(self):
        """Ask the broker who consumes; returns queue -> set of connections."""
        channels = {row['pid']: row['connection'] for row in self._control.listing('list_channels', 'pid', 'connection')}
        names = {row['pid']: row['name'] for row in self._control.listing('list_connections', 'pid', 'name')}
        heard = {}
        for row in self._control.listing('list_consumers', '--vhost', self._vhost):
            heard.setdefault(row['queue_name'], set()).add(names[channels[row['channel_pid']]])
        return heard


def process_id(properties):
    """Read the process id out of the name that oslo.messaging gives to a connection: PROGRAM:PROCESS:RANDOM. 0 if it is no such name."""
    words = str(properties.get('connection_name', '')).rsplit(':', 2)
    return int(words[1]) if len(words) == 3 and words[1].isdigit() else 0


def _pairs(table_):
    """Give the name and value of each entry of an AMQP table, in whichever of its forms rabbitmqctl writes it."""
    if isinstance(table_, dict):
        return table_.items()
    return [(entry[0], entry[-1]) for entry in table_]
