"""The test servers themselves: each test gets its own part of them, they serve inside a namespace, and they go with their owner."""
import contextlib
import json
import os
import pathlib
import secrets
import shutil
import signal
import subprocess
import sys

import kombu
import sqlalchemy

from tests import base, services


def _processes(needle):
    """Return the ids of the processes whose command line holds `needle`."""
    found = []
    for entry in pathlib.Path('/proc').glob('[0-9]*'):
        try:
            if needle.encode() in (entry / 'cmdline').read_bytes():
                found.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError):
            continue    # it ended in the meantime
    return found


class DatabaseCase(base.TestCase):
    timeout = 180

    def _check(self, kind, version_holds):
        one, other = (sqlalchemy.create_engine(self.useFixture(services.Database(kind)).url) for _ in range(2))
        self.addCleanup(one.dispose)
        self.addCleanup(other.dispose)
        with one.begin() as connection:
            connection.execute(sqlalchemy.text('CREATE TABLE guest (name VARCHAR(20))'))
            connection.execute(sqlalchemy.text("INSERT INTO guest VALUES ('żółw')"))
        with one.connect() as connection:
            self.assertEqual('żółw', connection.execute(sqlalchemy.text('SELECT name FROM guest')).scalar_one())
        self.assertEqual([], sqlalchemy.inspect(other).get_table_names())
        if version_holds:
            with other.connect() as connection:
                self.assertIn(version_holds, connection.execute(sqlalchemy.text('SELECT version()')).scalar_one())

    def test_each_test_has_a_mysql_database_of_its_own(self):
        self._check('mysql', None if os.environ.get('MIGRATOR_TEST_MYSQL_URL') else 'MariaDB')

    def test_each_test_has_a_postgresql_database_of_its_own(self):
        self._check('postgresql', 'PostgreSQL')

    def test_each_test_has_an_sqlite_database_of_its_own(self):
        self._check('sqlite', None)

    def test_a_dropped_database_is_gone_although_somebody_is_connected(self):
        database = services.Database('postgresql')
        with database:
            engine = sqlalchemy.create_engine(database.url)
            self.addCleanup(engine.dispose)
            connection = engine.connect()
        self.assertRaises(sqlalchemy.exc.OperationalError, connection.execute, sqlalchemy.text('SELECT 1'))


class BrokerCase(base.TestCase):
    timeout = 180

    @contextlib.contextmanager
    def _queue(self, url):
        # kombu takes amqp:// where oslo.messaging takes rabbit://
        with kombu.Connection(url.replace('rabbit://', 'amqp://', 1), connect_timeout=10) as connection:
            with connection.SimpleQueue('greetings') as queue:
                yield queue

    def test_what_one_test_sends_no_other_test_gets(self):
        urls = [self.useFixture(services.Broker()).url for _ in range(2)]
        with self._queue(urls[0]) as mine, self._queue(urls[1]) as others:
            mine.put('hello')
            self.assertEqual('hello', mine.get(timeout=10).payload)
            mine.put('again')
            self.assertRaises(others.Empty, others.get, timeout=0.5)

    def test_a_broker_that_stops_and_starts_keeps_durable_messages(self):
        with services.start_rabbitmq() as server:
            with self._queue(server.url()) as queue:
                queue.put('hello')
            server.request('stop')
            self.assertRaises(kombu.exceptions.OperationalError, self._queue(server.url()).__enter__)
            server.request('start')
            with self._queue(server.url()) as queue:
                self.assertEqual('hello', queue.get(timeout=10).payload)

    def test_an_unknown_request_is_an_error_and_the_broker_goes_on(self):
        with services.start_rabbitmq() as server:
            error = self.assertRaises(RuntimeError, server.request, 'nonsense')
            self.assertIn("unknown request 'nonsense'", str(error))
            server.request('vhosts', 'still-there')
            with self._queue(server.url('still-there')) as queue:
                queue.put('hello')
                self.assertEqual('hello', queue.get(timeout=10).payload)

    def test_a_broker_in_a_network_namespace_is_reachable_there_only(self):
        namespace = f'mt{secrets.token_hex(3)}'
        self._ip('netns', 'add', namespace)
        self.addCleanup(self._ip, 'netns', 'del', namespace)
        self._ip('-n', namespace, 'link', 'set', 'lo', 'up')
        self._ip('-n', namespace, 'address', 'add', '192.0.2.1/32', 'dev', 'lo')
        with services.start_rabbitmq('192.0.2.1', namespace) as server:
            self.assertIn('@192.0.2.1:', server.url())
            code = 'import kombu, sys; kombu.Connection(sys.argv[1], connect_timeout=10).connect()'
            inside = subprocess.run(['ip', 'netns', 'exec', namespace, sys.executable, '-c', code, server.url().replace('rabbit', 'amqp')],
                                    capture_output=True, timeout=60, text=True)
            self.assertEqual((0, ''), (inside.returncode, inside.stderr))
            listening = subprocess.run(['ip', 'netns', 'exec', namespace, 'ss', '-Hltn'], capture_output=True, timeout=20, text=True).stdout
            addresses = {line.split()[3].rsplit(':', 1)[0] for line in listening.splitlines()}
            self.assertIn('192.0.2.1', addresses)
            self.assertEqual(set(), addresses - {'192.0.2.1', '127.0.0.1', '[::1]'})

    def _ip(self, *args):
        subprocess.run(['ip', *args], check=True, timeout=20)


class OwnerCase(base.TestCase):
    timeout = 240

    CODE = """
import json, sys
from tests import services
server = services.Server(sys.argv[1])
print(json.dumps({'directory': server.info['directory'], 'keeper': server.pid}), flush=True)
sys.stdin.read()
"""

    def _owner(self, kind):
        owner = subprocess.Popen([sys.executable, '-c', self.CODE, kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                 cwd=services.REPOSITORY)
        self.addCleanup(owner.stdout.close)
        self.addCleanup(owner.stdin.close)
        self.addCleanup(owner.wait, 20)
        self.addCleanup(owner.kill)
        info = json.loads(owner.stdout.readline())
        self.assertNotEqual([], _processes(info['directory']), 'the server runs')
        return owner, info

    def _check_killed_owner(self, kind):
        owner, info = self._owner(kind)
        owner.send_signal(signal.SIGKILL)
        self.wait_for(lambda: not _processes(info['directory']), f'{kind} to end after its owner was killed', timeout=60)
        self.wait_for(lambda: not os.path.exists(info['directory']), 'the data to be removed')

    def test_rabbitmq_ends_when_its_owner_is_killed(self):
        self._check_killed_owner('rabbitmq')

    def test_mariadb_ends_when_its_owner_is_killed(self):
        self._check_killed_owner('mariadb')

    def test_postgresql_ends_when_its_owner_is_killed(self):
        self._check_killed_owner('postgresql')

    def test_a_server_ends_when_its_keeper_is_killed(self):
        _, info = self._owner('rabbitmq')
        self.addCleanup(shutil.rmtree, info['directory'])
        os.kill(info['keeper'], signal.SIGKILL)
        self.wait_for(lambda: not _processes(info['directory']), 'RabbitMQ to end after its keeper was killed', timeout=60)

    def test_what_a_killed_keeper_left_is_removed_by_the_next_server(self):
        _, info = self._owner('postgresql')
        os.kill(info['keeper'], signal.SIGKILL)
        self.wait_for(lambda: not _processes(info['directory']), 'PostgreSQL to end', timeout=60)
        os.utime(os.path.join(info['directory'], 'lock'), (0, 0))
        with services.start_postgresql() as server:
            self.assertFalse(os.path.exists(info['directory']))
            self.assertTrue(os.path.exists(server.info['directory']))
        self.assertFalse(os.path.exists(server.info['directory']))
