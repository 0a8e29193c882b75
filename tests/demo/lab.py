"""The demonstration with real things: daemons, RabbitMQ, libvirt and a QEMU guest that ticks and writes, in the lab.

A lab that is up already is used and left as it was found; otherwise one is built, which ends with this process however that ends.
"""
import contextlib
import itertools
import pathlib
import time
import uuid

from migrator import exceptions
from migrator.states import Status
from tests.demo import surroundings
from tests.demo.story import Failed, Finding, Stage, follow, wait_until
from tests.lab import Console, LabError, disk, guest

MIB = 1 << 20
#: MiB: the guest's disk, the part of it that is filled at the start, and what a migration may transfer in a second, so that one can watch.
DISK, FILL, BANDWIDTH = 64, 24, 40
#: Seconds between two ticks, and between two records on the disk.
TICK, WRITE = 0.1, 0.1


class InLab(Stage):
    """Two libvirt hosts of the lab. Use as a context manager.

    folder: of the lab. keep: leave the lab, the daemons and the guest when the story has ended well.
    """

    patience = 120.0
    interval = 0.2
    options = {'bandwidth_mib': BANDWIDTH}

    def __init__(self, folder, keep, show):
        self._around = surroundings.Surroundings(folder, keep, show)
        self._keep = keep
        self.uuid = str(uuid.uuid4())
        self.console = None
        self._stack = contextlib.ExitStack()

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._around)
            self.lab, self.api, self.hosts = self._around.lab, self._around.api, self._around.hosts
            self._remove_forgotten()
            stack.push(self._leave)
            self.console = stack.enter_context(Console(self.lab.console_paths(self.uuid)))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error):
        return self._stack.__exit__(*error)

    # --- the guest ---

    def spec(self):
        """See Stage."""
        self._note.write_text(self.uuid)
        taken = {instance['name'] for instance in self.api.instances()}     # in a lab that was kept a guest of before may live on
        name = next(name for name in itertools.chain(['demo'], (f'demo-{n}' for n in itertools.count(2))) if name not in taken)
        return {'uuid': self.uuid, 'name': name, 'memory_mib': guest.MEMORY_MIB, 'kernel': str(guest.kernel()),
                'initrd': str(self.lab.initrd), 'cmdline': guest.command_line(tick=TICK, write=WRITE, fill=FILL),
                'disks': [{'target': 'vda', 'size': DISK * MIB}]}

    def guest_words(self):
        """See Stage."""
        ticks = self.console.ticks()
        if not ticks:
            return 'boots'
        silent = time.monotonic() - ticks[-1].seen
        return f'tick {ticks[-1].number}, {self.console.last_written()} records on its disk' + (
            f', silent for {silent:.1f} s' if silent > 3 * TICK else '')

    def guest_count(self):
        """See Stage."""
        ticks = self.console.ticks()
        return ticks[-1].number if ticks else 0

    def wait_alive(self):
        """See Stage: it has filled its disk once, and ticks and writes now."""
        wait_until(lambda: f'filled {FILL}' in self.console.text(), self.patience, 'the boot of the guest')
        ticks, written = self.guest_count(), self.console.last_written()
        wait_until(lambda: self.guest_count() > ticks + 1 and self.console.last_written() > written, self.patience,
                   'ticks and records of the guest')

    def before_move(self):
        """See Stage."""
        return time.monotonic()

    def after_move(self, before, view):
        """See Stage."""
        gap, own = (self.console.largest_gap(before, by) for by in ('seen', 'uptime'))
        return [('longest pause of ticks', f'{gap * 1000:.0f} ms ({own * 1000:.0f} ms by the guest\'s clock; one tick is due each '
                                           f'{TICK * 1000:.0f} ms)'),
                ('copied', f'{view["statistics"].get("memory_processed", 0) // MIB} MiB of memory, '
                           f'{view["statistics"].get("disk_processed", 0) // MIB} MiB of disk')]

    # --- the end ---

    def inspect(self):
        """See Stage: what libvirt at both hosts, the guest's console and its disk say."""
        first, second = (self.lab.host(name) for name in self.hosts)
        states = {host.name: host.virsh('domstate', self.uuid, check=False).strip() for host in (first, second)}
        yield Finding(states == {first.name: 'running', second.name: ''},
                      'libvirt: ' + ', '.join(f'{state or "unknown"} on {host}' for host, state in states.items()))
        left = self._files(second)
        yield Finding(not left, f'files on {second.name}: ' + (', '.join(left) or 'none'))
        missing = self.console.missing()
        yield Finding(not missing, f'the guest counted to {self.guest_count()}, ' + (
            f'ticks are missing: {missing[:10]}' if missing else 'without a tick missing, and never started anew'))
        known = self._stop()
        yield self._records(first, known)
        if self._keep:
            self._do(self.api.instance_start(self.uuid))
            yield Finding(True, 'the guest has been started again')
        else:
            yield from self._delete((first, second))

    def _stop(self):
        """Stop the guest; returns the last record that it knew to be safe."""
        self._do(self.api.instance_stop(self.uuid, timeout=30))
        time.sleep(0.1)                  # the console's last words; it is looked at every 20 ms
        return self.console.last_written()

    def _records(self, host, known):
        """Read back what the guest wrote."""
        path = host.instances_outside / self.uuid / 'vda.qcow2'
        try:
            records = disk.read_records(path)
            records.check(known)
            disk.check_fill(path, FILL)
        except LabError as error:
            return Finding(False, f'the disk: {error}')
        return Finding(known > 0, f'stopped, its disk has all {known} records that it knew to be written ({records.whole} in all), '
                                  f'and {FILL} MiB written before the first move')

    def _delete(self, hosts):
        self._do(self.api.instance_delete(self.uuid))
        self._note.unlink()
        left = [f'{path} on {host.name}' for host in hosts for path in self._files(host)]
        left += [f'a domain on {host.name}' for host in hosts if self.uuid in host.domains()]
        yield Finding(not left, 'deleted, it has left ' + (', '.join(left) or 'nothing on either host'))

    def _files(self, host):
        folder = host.instances_outside / self.uuid
        return sorted(path.name for path in folder.iterdir()) or ['an empty folder'] if folder.exists() else []

    def _do(self, migration):
        done = follow(self, migration)
        if done['status'] != Status.COMPLETED:
            raise Failed(f'{done["kind"]} of the guest {done["status"]}: {done["error"] or done["reason"]}')

    # --- cleaning up in a lab that stays ---

    @property
    def _note(self):
        """Names the demonstration's guest as long as it exists, so that the next demonstration removes one that was killed."""
        return pathlib.Path(self.lab.folder / 'state' / 'demo-guest')

    def _remove_forgotten(self):
        if self._note.exists():
            self._remove(self._note.read_text())
            self._note.unlink()

    def _leave(self, kind, *_):
        """In a lab that stays, remove the guest of a story that broke off; in our own it ends with the lab."""
        if self._keep and kind is None:
            self._note.unlink()
            self._around.keep()
        elif self._around.reused and self._note.exists():
            self._remove(self.uuid)
            self._note.unlink()

    def _remove(self, instance_uuid):
        """Remove a guest, whatever it is doing."""
        with contextlib.suppress(exceptions.InstanceNotFound):
            for migration in self.api.list({'instance': instance_uuid}):
                if not Status(migration['status']).terminal:
                    with contextlib.suppress(exceptions.Conflict):    # it cannot be aborted any more, so it ends by itself
                        self.api.abort(migration['id'])
                    follow(self, migration)
            self._do(self.api.instance_stop(instance_uuid, timeout=0))
            self._do(self.api.instance_delete(instance_uuid))
