"""The process that runs one test server and takes it down when its owner goes.

`python -m tests.service_keeper KIND LISTEN ROOT` starts RabbitMQ, MariaDB or PostgreSQL through pifpaf and says on its
standard output how to reach it, as one line of JSON. Then it answers requests, one line of JSON each, until its standard input
ends - which also happens when the owner is killed, so nothing is left running. tests/services.py puts it into a process
namespace of its own where it can; killing the keeper itself then takes the server along.
"""
import contextlib
import fcntl
import glob
import json
import logging
import os
import pathlib
import pwd
import secrets
import shutil
import signal
import socket
import sys
import tempfile

import psutil
from pifpaf.drivers import mysql, postgresql, rabbitmq

#: What an owner may have done to its server: signals, and the requests that take it down in order or bring it back.
SIGNALS = {'freeze': signal.SIGSTOP, 'thaw': signal.SIGCONT, 'crash': signal.SIGKILL, 'halt': signal.SIGTERM}


def free_port(address):
    """Return a TCP port on which nothing listens at `address` right now."""
    with socket.socket(socket.AF_INET6 if ':' in address else socket.AF_INET) as probe:
        probe.bind((address, 0))
        return probe.getsockname()[1]


class Mortal:
    """A server that can be frozen (`freeze`, `thaw`), killed (`crash`) or stopped (`halt`), and started again on its data (`revive`)."""

    def request(self, what, args):
        """Do one of these."""
        if what in SIGNALS:
            processes = self.processes()
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(SIGNALS[what])
                if what == 'halt':
                    break       # the first one takes the others along
            if what in ('crash', 'halt'):
                _gone, alive = psutil.wait_procs(processes, timeout=30)
                if alive:
                    raise RuntimeError(f'{alive} did not end')
        elif what == 'revive':
            self.revive()
        else:
            raise ValueError(f'unknown request {what!r}')


class RabbitMQ(Mortal, rabbitmq.RabbitMQDriver):
    """pifpaf's broker, on any address, with every other port of the Erlang machine on loopback and of its own.

    Debian's /usr/sbin/rabbitmq-server changes to another user; pifpaf takes the one below /usr/lib, which runs as whoever started it.
    """

    def __init__(self, listen, **kwargs):
        super().__init__(port=free_port(listen), nodename=f'migrator-{secrets.token_hex(4)}', password=secrets.token_hex(8), **kwargs)
        self.listen = listen
        self.node = f'{self.nodename}@localhost'

    def _setUp(self):
        os.environ.update({
            'ERL_EPMD_PORT': str(free_port('127.0.0.1')), 'ERL_EPMD_ADDRESS': '127.0.0.1',
            'RABBITMQ_DIST_PORT': str(free_port('127.0.0.1')),
            'RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS': '-kernel inet_dist_use_interface {127,0,0,1}'})
        # Erlang would start its port mapper by itself and leave it behind for ever. This one ends with the broker.
        port = int(os.environ['ERL_EPMD_PORT'])
        self._exec(['epmd', '-port', str(port), '-address', '127.0.0.1'], wait_for_port=port)
        super()._setUp()

    def start_node(self, nodename):
        # Two schedulers, as many as CI has cores, and no busy waiting: an idle broker costs nothing beside the tests.
        self.env.update({'RABBITMQ_NODE_IP_ADDRESS': self.listen, 'RABBITMQ_CONFIG_FILE': os.path.join(self.tempdir, 'none'),
                         'RABBITMQ_CONF_ENV_FILE': os.path.join(self.tempdir, 'none'),
                         'RABBITMQ_CTL_ERL_ARGS': '+S 1:1 +sbwt none',
                         'RABBITMQ_SERVER_START_ARGS': '+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none'})
        return super().start_node(nodename)

    def describe(self):
        host = f'[{self.listen}]' if ':' in self.listen else self.listen
        return {'url': f'rabbit://{self.username}:{self.password}@{host}:{self.port}/', 'node': self.node, 'data': self.tempdir}

    def request(self, what, args):
        """vhosts: make virtual hosts, many in one go because each call of rabbitmqctl takes a second. stop, start: the broker."""
        if what == 'vhosts':
            names = ', '.join(f'<<"{name}">>' for name in args)
            grant = f'rabbit_auth_backend_internal:set_permissions(<<"{self.username}">>, V, <<".*">>, <<".*">>, <<".*">>, <<"tests">>)'
            self.rabbitmqctl(self.node, ['eval', f'[begin ok = rabbit_vhost:add(V, <<"tests">>), {grant} end || V <- [{names}]].'])
        elif what == 'stop':
            self.stop_node(self.node)
        elif what == 'start':
            self.rabbitmqctl(self.node, ['start_app'])
        else:
            super().request(what, args)

    def processes(self):
        leader = self._process[self.node]
        return [leader, *leader.children(recursive=True)]

    def revive(self):
        self._process.pop(self.node, None)
        self.start_node(self.node)


class MariaDB(Mortal, mysql.MySQLDriver):
    """pifpaf's MariaDB, on a Unix socket only, so that it is reachable from every network namespace."""

    def __init__(self, listen, **kwargs):
        super().__init__(**kwargs)
        self._server = None

    def _exec(self, command, **kwargs):
        done = super()._exec(command, **kwargs)
        if any(word.startswith('--socket=') for word in command):
            self._server, self._again = done[0], (command, kwargs)
        return done

    def processes(self):
        return [self._server, *self._server.children(recursive=True)]

    def revive(self):
        command, kwargs = self._again
        self._exec(command, **kwargs)

    def describe(self):
        return {'url': f'mysql+pymysql://root@localhost/{{database}}?unix_socket={self.socket}', 'data': self.tempdir}


class PostgreSQL(Mortal, postgresql.PostgreSQLDriver):
    """pifpaf's PostgreSQL, on a Unix socket only. It refuses to run as root, so root runs it as the user that the package made."""

    def __init__(self, listen, **kwargs):
        super().__init__(**kwargs)
        self.user = 'postgres' if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name

    def _setUp(self):
        # Debian keeps the programs apart by version and out of PATH.
        found = sorted(glob.glob('/usr/lib/postgresql/*/bin'), key=lambda path: float(path.split('/')[4]))
        os.environ['PATH'] = ':'.join([*found[-1:], os.environ['PATH']])
        super()._setUp()

    def _exec(self, command, **kwargs):
        if command[-1] == 'start':
            self._again = (list(command), kwargs)
            command = [*command[:-1], '-l', os.path.join(self.tempdir, 'server.log'), 'start']    # nobody would read it otherwise
        if os.getuid() == 0:
            account = pwd.getpwnam(self.user)
            os.chown(self.tempdir, account.pw_uid, account.pw_gid)
            os.chdir(self.tempdir)
            command = ['setpriv', f'--reuid={account.pw_uid}', f'--regid={account.pw_gid}', '--clear-groups', *command]
        return super()._exec(command, **kwargs)

    def processes(self):
        postmaster = psutil.Process(int(pathlib.Path(self.tempdir, 'postmaster.pid').read_text().split()[0]))
        return [postmaster, *postmaster.children(recursive=True)]

    def request(self, what, args):
        if what == 'halt':      # what pg_ctl calls fast: sessions are ended, not waited for
            self._exec([*self._again[0][:1], '-w', '-m', 'fast', 'stop'])
        else:
            super().request(what, args)

    def revive(self):
        command, kwargs = self._again
        self._exec(command, **kwargs)

    def describe(self):
        return {'url': f'postgresql+psycopg2://{self.user}@/{{database}}?host={self.tempdir}&port={self.port}', 'data': self.tempdir}


KINDS = {'rabbitmq': RabbitMQ, 'mariadb': MariaDB, 'postgresql': PostgreSQL}


def serve(server, requests, answers):
    """Answer requests until they end. A request that fails is answered with its error and ends nothing."""
    for line in requests:
        request = json.loads(line)
        try:
            server.request(request['what'], request.get('args', []))
            answer = {}
        except Exception as error:
            logging.exception('request %s failed', request)
            answer = {'error': str(error)}
        print(json.dumps(answer), file=answers, flush=True)


def main(kind, listen, root):
    """Start one server of `kind` with its data in a new directory below `root`, serve, and clean up."""
    logging.basicConfig(level=logging.DEBUG, stream=sys.stderr, format='%(asctime)s %(message)s')
    signal.signal(signal.SIGINT, signal.SIG_IGN)    # Ctrl-C goes to the owner, who then closes the pipe
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    answers = os.fdopen(os.dup(sys.stdout.fileno()), 'w')
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())    # what a server prints is no answer
    directory = tempfile.mkdtemp(prefix='k', dir=root)
    os.chmod(directory, 0o755)
    with open(os.path.join(directory, 'lock'), 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)    # held while this process lives; who finds it free may remove the directory
        os.environ['TMPDIR'] = directory
        tempfile.tempdir = directory
        with KINDS[kind](listen, tmp_rootdir=directory) as server:
            print(json.dumps(server.describe() | {'directory': directory}), file=answers, flush=True)
            serve(server, sys.stdin, answers)
        shutil.rmtree(directory)


if __name__ == '__main__':
    main(*sys.argv[1:])
