"""RabbitMQ, MariaDB and PostgreSQL for tests: those that an environment variable names, else Debian's programs started by pifpaf.

MIGRATOR_TEST_RABBIT_URL, MIGRATOR_TEST_MYSQL_URL and MIGRATOR_TEST_POSTGRESQL_URL name servers that run already (compose.yaml starts such
ones); the account needs the right to create databases. Otherwise a server starts when the first test of a process asks for it, serves
all tests of that process and ends with it, even if the process is killed. Each test gets a database and a virtual host of its own:

    self.url = self.useFixture(services.Database('mysql')).url
    self.transport_url = self.useFixture(services.Broker()).url

`start_rabbitmq`, `start_mariadb` and `start_postgresql` start further servers, inside a network namespace if wanted.
"""
import atexit
import base64
import fcntl
import functools
import json
import os
import pathlib
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request

import fixtures
import sqlalchemy

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
START_SECONDS = 120
STOP_SECONDS = 60
DATABASES = {'mysql': ('mariadb', 'MIGRATOR_TEST_MYSQL_URL'), 'postgresql': ('postgresql', 'MIGRATOR_TEST_POSTGRESQL_URL')}
_ROOT = pathlib.Path(tempfile.gettempdir()) / f'migrator-services-{os.geteuid()}'    # short: Unix socket paths end at 107 characters
_shared = {}
_shared_lock = threading.Lock()


@functools.cache
def _process_namespace():
    """Return the command that puts a server into a process namespace which dies with its first process, or nothing where it may not."""
    command = ['unshare', '--pid', '--fork', '--kill-child', '--mount-proc', '--ipc']
    try:
        possible = subprocess.run([*command, 'true'], capture_output=True, timeout=20).returncode == 0
    except OSError:
        possible = False
    return command if possible else []


def _root():
    """Return the directory for servers' data, free of what killed processes left there."""
    _ROOT.mkdir(mode=0o755, exist_ok=True)
    if _ROOT.is_symlink() or _ROOT.stat().st_uid != os.geteuid():
        raise RuntimeError(f'{_ROOT} belongs to somebody else')
    for directory in _ROOT.iterdir():
        try:
            with open(directory / 'lock') as lock:
                if time.time() - os.fstat(lock.fileno()).st_mtime < 60:
                    continue    # it may be about to be locked
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, FileNotFoundError):
            continue
        shutil.rmtree(directory, ignore_errors=True)
    return _ROOT


class Server:
    """One server that this process started. A context manager; `stop` is idempotent.

    kind: rabbitmq, mariadb or postgresql. listen: the address for RabbitMQ; the databases are reached by a Unix socket from
    everywhere on this machine. netns: the name of a network namespace (`ip netns`) to run in, whose loopback interface must be up.
    Raises RuntimeError with the end of the server's log if it does not start.
    """

    def __init__(self, kind, listen='127.0.0.1', netns=None):
        self.kind = kind
        self._lock = threading.Lock()
        self._log = tempfile.TemporaryFile()
        command = [*_process_namespace(), sys.executable, '-m', 'tests.service_keeper', kind, listen, str(_root())]
        if netns:
            command = ['ip', 'netns', 'exec', netns, *command]
        # A session of its own: Ctrl-C is this process's to handle, which then takes the server down in order.
        self._process = subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log,
                                         start_new_session=True)
        self.info = self._answer(START_SECONDS)
        self._address = self.info['url']

    @property
    def pid(self):
        """The process that holds the server up; the server ends with it."""
        return self._process.pid

    def url(self, name=''):
        """Return the URL of the database or virtual host `name` (which is not created)."""
        return self._address + name if self.kind == 'rabbitmq' else self._address.format(database=name)

    def request(self, what, *args):
        """Ask the keeper for something; see tests/service_keeper.py. Raises RuntimeError with its answer if it fails."""
        with self._lock:
            self._process.stdin.write(json.dumps({'what': what, 'args': args}).encode() + b'\n')
            self._process.stdin.flush()
            answer = self._answer(STOP_SECONDS)
        if 'error' in answer:
            raise RuntimeError(f'{self.kind}: {answer["error"]}\n{self._end_of_log()}')

    def stop(self):
        """End the server, its keeper and its data."""
        if self._process.stdin.closed:
            return
        self._process.stdin.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()
        shutil.rmtree(self.info['directory'], ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def _answer(self, seconds):
        deadline = threading.Timer(seconds, self._process.kill)
        deadline.start()
        line = self._process.stdout.readline()
        deadline.cancel()
        if not line:
            self._process.kill()
            self._process.wait()
            raise RuntimeError(f'{self.kind} ended or did not answer in {seconds} s:\n{self._end_of_log()}')
        return json.loads(line)

    def _end_of_log(self):
        self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - 4000))
        return self._log.read().decode(errors='replace')


def start_rabbitmq(listen='127.0.0.1', netns=None):
    """Start a RabbitMQ of one's own; `url()` is its default virtual host, for an account that may do everything in it."""
    return Server('rabbitmq', listen, netns)


def start_mariadb():
    """Start a MariaDB of one's own; `url('mysql')` serves to create databases."""
    return Server('mariadb')


def start_postgresql():
    """Start a PostgreSQL of one's own; `url('postgres')` serves to create databases."""
    return Server('postgresql')


def shared(kind):
    """Return this process's server of a kind; the first call starts it, the end of the process stops it."""
    with _shared_lock:
        if kind not in _shared:
            _shared[kind] = Server(kind)
            atexit.register(_shared[kind].stop)
        return _shared[kind]


class Broker(fixtures.Fixture):
    """A RabbitMQ virtual host that no other test sees. `url` is what oslo.messaging's transport_url takes.

    With MIGRATOR_TEST_RABBIT_URL the virtual host is made through MIGRATOR_TEST_RABBIT_MANAGEMENT_URL (such as http://127.0.0.1:15672, same
    account); without that, tests share the virtual host of the URL, and what they left in it.
    """

    _ready = []
    BATCH = 16

    def _setUp(self):
        given = os.environ.get('MIGRATOR_TEST_RABBIT_URL')
        if not given:
            if not Broker._ready:
                names = [f'test-{secrets.token_hex(6)}' for _ in range(self.BATCH)]
                shared('rabbitmq').request('vhosts', *names)
                Broker._ready.extend(names)
            self.url = shared('rabbitmq').url(Broker._ready.pop())
        elif management := os.environ.get('MIGRATOR_TEST_RABBIT_MANAGEMENT_URL'):
            self.url = self._make_virtual_host(urllib.parse.urlsplit(given), management.rstrip('/'))
        else:
            self.url = given

    def _make_virtual_host(self, given, management):
        name = f'migrator-test-{secrets.token_hex(6)}'
        account = f'{urllib.parse.unquote(given.username)}:{urllib.parse.unquote(given.password)}'
        headers = {'Authorization': 'Basic ' + base64.b64encode(account.encode()).decode(), 'Content-Type': 'application/json'}

        def call(method, path, body):
            request = urllib.request.Request(f'{management}/api/{path}', json.dumps(body).encode(), headers, method=method)
            urllib.request.urlopen(request, timeout=20).close()

        call('PUT', f'vhosts/{name}', {})
        self.addCleanup(call, 'DELETE', f'vhosts/{name}', {})
        call('PUT', f'permissions/{name}/{given.username}', {'configure': '.*', 'write': '.*', 'read': '.*'})
        return given._replace(path=f'/{name}').geturl()


class Database(fixtures.Fixture):
    """An empty database that no other test sees. `url` is what SQLAlchemy and oslo.db take.

    kind: sqlite (a file), mysql (MariaDB or MySQL) or postgresql. server: a Server of one's own to make it in, whose end is its end.
    """

    def __init__(self, kind, server=None):
        super().__init__()
        self.kind = kind
        self.server = server

    def _setUp(self):
        if self.kind == 'sqlite':
            self.url = f'sqlite:///{self.useFixture(fixtures.TempDir()).path}/migrator.sqlite'
            return
        server, variable = DATABASES[self.kind]
        name = f'migrator_test_{secrets.token_hex(6)}'
        admin = self._admin(server, variable)
        options = {'mysql': 'CHARACTER SET utf8mb4', 'postgresql': "ENCODING 'UTF8' TEMPLATE template0"}[self.kind]
        self._run(admin, f'CREATE DATABASE {name} {options}')
        # PostgreSQL refuses to drop a database to which a daemon that was just killed is still connected.
        if self.server is None:
            self.addCleanup(self._run, admin, f'DROP DATABASE IF EXISTS {name}{" WITH (FORCE)" if self.kind == "postgresql" else ""}')
        self.url = admin.set(database=name).render_as_string(hide_password=False)

    def _admin(self, server, variable):
        """URL of a database of the server, for an account that may create others."""
        given = os.environ.get(variable)
        if given and self.server is None:
            return sqlalchemy.make_url(given)
        return sqlalchemy.make_url((self.server or shared(server)).url('mysql' if self.kind == 'mysql' else 'postgres'))

    @staticmethod
    def _run(admin, statement):
        engine = sqlalchemy.create_engine(admin, isolation_level='AUTOCOMMIT', poolclass=sqlalchemy.NullPool)
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text(statement))
        engine.dispose()
