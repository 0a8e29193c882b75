"""Runs one service of a lab until SIGTERM: `python -m tests.lab.serve KIND ADDRESS PORT FOLDER`, started inside svc.

The servers are started by pifpaf's drivers. Databases refuse to run as root, so they run as the user of their Debian package; the
broker is made to listen on the lab's bridge, because pifpaf's own listens on loopback, where no host of the lab reaches it.
When the service is ready a line of JSON with its URL is printed.
"""
import glob
import json
import os
import pwd
import signal
import sys
import tempfile
import threading

from pifpaf.drivers import mysql, postgresql, rabbitmq

USERS = {'mariadb': 'mysql', 'postgresql': 'postgres'}


class Broker(rabbitmq.RabbitMQDriver):
    """RabbitMQ on an address of one's choice."""

    def __init__(self, address, port):
        """Listen on `address` and `port`."""
        super().__init__(port=port)
        self._address = address

    def _exec(self, command, **options):
        env = options.get('env') or {}
        if 'RABBITMQ_NODE_IP_ADDRESS' in env:
            options['env'] = {**env, 'RABBITMQ_NODE_IP_ADDRESS': self._address}
        return super()._exec(command, **options)


def _fixture(kind, address, port):
    """The driver of a service, and how its URL follows from the driver once it runs."""
    if kind == 'rabbitmq':
        driver = Broker(address, port)
        return driver, lambda: f'rabbit://{driver.username}:{driver.password}@{address}:{port}/'
    if kind == 'mariadb':
        driver = mysql.MySQLDriver()
        return driver, lambda: f'mysql+pymysql://root@localhost/pifpaf?unix_socket={driver.socket}&charset=utf8mb4'
    driver = postgresql.PostgreSQLDriver(port=port, host=address)
    return driver, lambda: f'postgresql+psycopg2://postgres@/postgres?host={driver.tempdir}&port={port}'


def _become(user):
    """Give up root for `user`, whose home the process takes too."""
    entry = pwd.getpwnam(user)
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
    os.environ.update(USER=user, LOGNAME=user, HOME=tempfile.gettempdir())


def main(argv):
    """Start the service, print its URL, and end it at SIGTERM or SIGINT."""
    kind, address, port, folder = argv[1], argv[2], int(argv[3]), argv[4]
    tempfile.tempdir = os.environ['TMPDIR'] = folder
    os.chdir(folder)
    os.environ['PATH'] = ':'.join([*sorted(glob.glob('/usr/lib/postgresql/*/bin'), reverse=True), os.environ['PATH']])
    if kind in USERS:
        os.chown(folder, pwd.getpwnam(USERS[kind]).pw_uid, -1)
        _become(USERS[kind])
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    fixture, url = _fixture(kind, address, port)
    with fixture:
        print(json.dumps({'url': url()}), flush=True)
        over.wait()
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv))
