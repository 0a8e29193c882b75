"""The decoding of what the broker tells: envelopes, replies, whose messages they are, and the names of connections."""
import json

from tests import base, trace

CONDUCTOR, AGENT = '10.0.0.1:4000 -> 10.0.0.9:5672', '[fd00::2]:4001 -> [fd00::9]:5672'


def copy(content, connection=CONDUCTOR, exchange='migrator', key='migrator-compute.a', queues=('migrator-compute.a',)):
    """Make a Message the way the broker tells it."""
    headers = {'connection': connection, 'exchange_name': exchange, 'routing_keys': [key], 'routed_queues': list(queues)}
    return trace.decode(f'publish.{exchange}', headers, json.dumps({'oslo.version': '2.0', 'oslo.message': json.dumps(content)}))


def request(method='locate_instance', key='k1', **context):
    """Make a request with a context."""
    return copy({'method': method, 'args': {}, 'namespace': None, 'version': '1.0', '_msg_id': key, '_reply_q': 'reply_1',
                 **{f'_context_{name}': value for name, value in context.items()}})


def reply(key='k1'):
    """Make a reply."""
    return copy({'result': 1, 'failure': None, '_msg_id': key, 'ending': True}, AGENT, '', 'reply_1', ('reply_1',))


class TestDecode(base.TestCase):
    """One copy from the firehose, opened."""

    def test_request(self):
        """Given a request, then its method, the place of its answer and its context are known."""
        message = request(request_id='r', migration_id='m')
        self.assertEqual(('request', 'locate_instance', '', 'k1', 'reply_1'),
                         (message.kind, message.method, message.namespace, message.key, message.reply_queue))
        self.assertEqual({'request_id': 'r', 'migration_id': 'm'}, message.context)
        self.assertEqual(('migrator-compute.a',), message.queues)

    def test_peer(self):
        """Given connections over IPv4 and IPv6, then the publisher's address is that of its end."""
        self.assertEqual(('10.0.0.1', 'fd00::2'), (request().peer, reply().peer))

    def test_reply(self):
        """Given a reply, then it has the key of its request."""
        self.assertEqual(('reply', 'k1', ''), (reply().kind, reply().key, reply().exchange))

    def test_no_envelope(self):
        """Given a message that is not oslo.messaging's, then it is kept as such and hides nothing."""
        headers = {'connection': AGENT, 'exchange_name': 'x', 'routing_keys': ['y'], 'routed_queues': ['q']}
        for body in (b'\xff\x00', '[]', '{}', '"text"', '{"oslo.message": 3}', '{"oslo.message": "{"}'):
            message = trace.decode('publish.x', headers, body)
            self.assertEqual(('other', AGENT, ('q',)), (message.kind, message.connection, message.queues), body)

    def test_deliveries_are_left_out(self):
        """Given the copy of a delivery, then it is no message."""
        self.assertIsNone(trace.decode('deliver.q', {}, b''))


class TestBelonging(base.TestCase):
    """Which messages a migration cost."""

    def test_requests_and_their_replies(self):
        """Given messages of two migrations and a user, then one's own are found by either id, replies by their request."""
        ours = [request('live_migrate', 'a', request_id='r1', migration_id=''), reply('a'),
                request('pre_live_migration', 'b', request_id='r9', migration_id='m1'), reply('b')]
        others = [request('show', 'c', request_id='r2', migration_id=''), reply('c'), request('locate_instance', 'd', migration_id='m2'),
                  reply('of nobody')]
        self.assertEqual(ours, trace.belonging([*others[:2], *ours, *others[2:]], 'm1', 'r1'))

    def test_empty_ids_match_nothing(self):
        """Given a request without ids in its context, then it belongs to no migration, not even to one with an empty id."""
        self.assertEqual([], trace.belonging([request(request_id='', migration_id='')], '', 'm1'))

    def test_heartbeats_are_apart(self):
        """Given a heartbeat under the migration's id, then it is not counted."""
        self.assertEqual([], trace.belonging([request('heartbeat', 'h', migration_id='m1'), reply('h')], 'm1'))

    def test_unanswered(self):
        """Given a request without a reply, then it is named; one that wants none is not."""
        waiting = request(key='b')
        self.assertEqual([waiting], trace.unanswered([request(key='a'), reply('a'), waiting, copy({'method': 'cast', 'args': {}})]))

    def test_table(self):
        """Given a request and its reply, then the table counts both under the method."""
        lines = trace.table([request(), reply()])
        self.assertEqual([['locate_instance', '1', '1'], ['messages', '2']], [line.split() for line in lines[1:]])


class TestProcess(base.TestCase):
    """Whose connection it is."""

    def test_process_id(self):
        """Given the name that oslo.messaging gives, then its process id is read; other names have none."""
        self.assertEqual(41, trace.process_id({'connection_name': 'a:b.py:41:0f-22'}))
        for name in ('', 'x', 'a:b', 'a:b:c'):
            self.assertEqual(0, trace.process_id({'connection_name': name}), name)
        self.assertEqual(0, trace.process_id({}))
