"""The soak's cloud in the libvirt lab: guests that tick and write, moved between hosts while daemons, libvirtds and the network fail."""
import contextlib
import os
import pathlib
import shutil
import signal
import sqlite3
import subprocess
import time

import fixtures

from migrator import exceptions
from tests.cloud import CONDUCTOR, SMALL_DISK, Cloud
from tests.functional.libvirt_harness import emulator
from tests.lab import LabError, processes, wait_until
from tests.soak import plan, rules, servers, watch
from tests.soak.faults import Busy

#: MiB a second: a guest has some 90 MiB to copy.
BANDWIDTH = 16
#: Seconds for which no host may have a good copy of a guest, while all can be asked: two looks, and a hand-over between them.
WITHOUT = 20.0


class LabStage(fixtures.Fixture):
    """`hosts` libvirt hosts with `guests` guests. database: mysql or postgresql."""

    kinds = plan.LAB
    bound, settle = 120.0, 300.0
    settling = rules.settling(CONDUCTOR)
    options = {'bandwidth_mib': BANDWIDTH}

    def __init__(self, hosts, guests, database):
        super().__init__()
        self._cloud = Cloud(database, conductors=2, hosts=hosts)
        self._count, self._database = guests, database
        self._copies = rules.Copies(WITHOUT)
        self.saboteur = None
        self.actions = {'restart libvirtd': self._restart_libvirtd, 'kill incoming emulator': self._kill_incoming,
                        'cut off host': self._cut}

    def _setUp(self):
        self.database_server = None
        self.addCleanup(self._end_database)      # after the cloud, which removes its database
        self.cloud = self.useFixture(self._cloud)
        self.api, self.database, self.daemons = self.cloud.api, self.cloud.database, self.cloud.daemons
        self.hosts = self.agents = list(self.cloud.hosts)
        self.conductors = [name for name in self.daemons if name not in self.hosts]
        lab = self.cloud.lab
        self.broker = servers.Broker(self._server_pid(lab, 'rabbitmq'))
        kind = 'mariadb' if self._database == 'mysql' else 'postgresql'
        self.database_server = servers.Database(self._server_pid(lab, kind), self._database)
        self.made = {}
        for number in range(self._count):
            guest = self.cloud.boot(self.hosts[number % len(self.hosts)], disks=[{'target': 'vda', 'size': SMALL_DISK}])
            self.made[guest.uuid] = guest
        self.guests = sorted(self.made)

    def _end_database(self):
        if self.database_server is not None:
            self.database_server.end()

    @staticmethod
    def _server_pid(lab, kind):
        from tests.lab import services
        pid = services._recorded(lab.folder / 'services' / f'{kind}.json')
        if pid is None:
            raise LabError(f'{kind} does not run')
        return pid

    # --- trouble ---

    def restart(self, name):
        """Start a daemon again and wait until it is ready."""
        self.daemons[name].start()
        self.daemons[name].wait_for('is ready', 180)

    def await_servers(self):
        """Wait until broker and database answer."""
        def answers():
            with contextlib.suppress(exceptions.MigratorError):
                self.database.run(lambda tx: tx.exec_driver_sql('SELECT 1').scalar())
                return self.api.hosts()
            return None
        wait_until(answers, 120, 'an answer of broker, database and a conductor', interval=0.3)

    def _restart_libvirtd(self, fault):
        name = self.hosts[fault.target % len(self.hosts)]
        with self.saboteur.holding(name):
            host = self.cloud.hosts[name]
            host.kill_libvirtd()
            time.sleep(fault.seconds)
            host.start_libvirtd()
            host.wait_ready()

    def _cut(self, fault):
        name = self.hosts[fault.target % len(self.hosts)]
        with self.saboteur.holding(name):
            self.cloud.hosts[name].cut()
            try:
                time.sleep(fault.seconds)
            finally:
                self.cloud.hosts[name].heal()

    def _kill_incoming(self, fault):
        """Kill a QEMU that receives a guest; only when the guest is seen to run at its source while that QEMU is held."""
        rows = [row for row in self.database.run(watch.migrations) if row.status == 'running']
        for row in rows[fault.target % len(rows):] + rows[:fault.target % len(rows)] if rows else ():
            with self.saboteur.holding(row.destination):
                if self._kill_if_incoming(row):
                    return
        raise Busy('nothing arrives anywhere')

    def _kill_if_incoming(self, row):
        pid = emulator(self.cloud.hosts[row.destination], row.instance)
        if not pid:
            return False
        os.kill(pid, signal.SIGSTOP)
        try:
            safe = self.cloud.hosts[row.source].virsh('domstate', row.instance, check=False).strip() == 'running'
            if safe:
                os.kill(pid, signal.SIGKILL)
        finally:
            processes.send(pid, signal.SIGCONT)
        return safe

    def unmet(self):
        """Every fault here is done at once."""
        return 0

    # --- looking ---

    def look(self):
        """Find what must never be, now. Raises Unavailable or LabError while somebody cannot be asked."""
        found = self.database.run(watch.orphaned_locks) + self._executed()
        before = self.database.run(watch.catalogue)
        looks = self._states(), self._states()
        after = self.database.run(watch.catalogue)
        found += self._copies.look(self.guests, looks, rules.moving(before, after), time.monotonic())
        where = {guest: {name for name in self.hosts if all(states[name].get(guest) == 'running' for states in looks)}
                 for guest in self.guests}
        return found + rules.catalogue(before, after, {guest: hosts for guest, hosts in where.items() if hosts})

    def _executed(self):
        """Find migrations that were begun twice. libvirt does not count its jobs; each agent notes one before it begins it."""
        return rules.executed_once(op_id.partition('/')[0] for _, op_id, method, *_ in self._journals() if method == 'live_migration')

    def _states(self):
        """{host: {guest: state}} of what is active, in libvirt's words. LabError if a host does not answer."""
        found = {}
        for name, host in self.cloud.hosts.items():
            try:
                found[name] = {uuid: host.virsh('domstate', uuid, check=False).strip() for uuid in host.virsh('list', '--uuid').split()}
            except subprocess.TimeoutExpired as error:
                raise LabError(f'{name}: libvirt does not answer: {error}') from error
        return found

    def remains(self):
        """Find what is not as it must be when all has ended and settled."""
        found = self.look() + self.database.run(watch.remains)
        after = self.database.run(watch.catalogue)
        for uuid, guest in self.made.items():
            found += self.cloud.violations(guest, after[uuid][0])
            gone = guest.console.missing()
            if gone:
                found.append(f'{uuid} has lost the ticks {gone[:10]}')
        return found + rules.journals(self._journals()) + (self._life() if not found else [])

    def _life(self):
        """What is wrong with guests and their disks, once hosts and database say that all is well."""
        found = []
        for uuid, guest in self.made.items():
            try:
                guest.console.wait_ticks(2, 30)
                self.cloud.check_disk(guest, self.api.instance_show(uuid)['host'])
            except (AssertionError, LabError) as error:
                found.append(f'{uuid} is not whole: {error}')
        return found

    def _journals(self):
        """What the agents have noted. LabError if a journal cannot be read now."""
        try:
            return [row for name, host in self.cloud.hosts.items() for path in host.state.glob(f'{name}-journal.db')
                    for row in watch.journal(path, name)]
        except sqlite3.OperationalError as error:
            raise LabError(f'a journal cannot be read: {error}') from error

    def keep(self, folder):
        """Copy the logs of daemons and hosts into `folder`."""
        for path in pathlib.Path(self.cloud.lab.folder).rglob('*'):
            if path.is_file() and (path.suffix in ('.log', '.conf') or 'journal.db' in path.name or 'console' in path.name):
                target = folder / path.relative_to(self.cloud.lab.folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, target)
