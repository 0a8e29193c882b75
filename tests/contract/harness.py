"""What the contract suite of compute drivers needs from whoever runs it: two hosts, guests, and hands on their storage.

A driver's tests subclass `ComputeHarness`; the scenarios in `compute_driver` use nothing else. `plan_for` makes a plan in the way of
the conductor, from what the two checks answer, so the scenarios exercise the facts too.
"""
import abc
import time
import uuid

from migrator.rpc import facts, volume_facts
from migrator.states import GuestState


class ComputeHarness(abc.ABC):
    """Two started drivers, `a` and `b`, on two hosts that can migrate to each other. One is made for every scenario.

    slow_mib: bandwidth in MiB/s with which a migration of any guest of `spec()` takes many seconds.
    restless_mib: bandwidth in MiB/s with which a guest of `spec(restless=True)` does not converge by itself, and with which it
    ends within `patience` once it is paused.
    patience: seconds that one scenario waits for something at most.
    kernel: a file on both hosts that guests may be booted from.
    """

    a = None
    b = None
    slow_mib = 1
    restless_mib = 20
    patience = 60.0
    kernel = ''

    @abc.abstractmethod
    def spec(self, shared=False, restless=False, disks=1, busy=False) -> facts.InstanceSpec:
        """Describe a new guest with its own uuid and name, and `disks` small disks, vda, vdb …

        shared: the disks lie in a directory that both hosts share, else in each host's own. restless: the guest rewrites its memory
        faster than `restless_mib`. busy: it writes all the time to the first volume that is attached to it.
        """

    @abc.abstractmethod
    def drop_foreign_file(self, driver, spec):
        """Put a file that no driver made where `driver`'s host would keep the first disk of `spec`."""

    @abc.abstractmethod
    def files(self, driver, instance_uuid) -> frozenset[str]:
        """Name everything that lies in the guest's directories on `driver`'s host, markers included; empty when they are gone."""

    @abc.abstractmethod
    def marker(self, driver, instance_uuid) -> str:
        """Give the migration id that marks the guest's files on `driver`'s host, '' when no migration does."""

    @abc.abstractmethod
    def stamp(self, driver, instance_uuid, text):
        """Write `text` (a few ASCII letters) into the first disk of a guest that is off, past the guest's driver."""

    @abc.abstractmethod
    def stamped(self, driver, instance_uuid) -> str:
        """Read back what `stamp` wrote, from the disk at `driver`'s host. The guest is off, or has left."""

    @abc.abstractmethod
    def pause(self, driver, instance_uuid):
        """Pause a running guest as an operator would, past migrator."""

    @abc.abstractmethod
    def resume(self, driver, instance_uuid):
        """Take back `pause`."""

    @abc.abstractmethod
    def pause_by_migration(self, driver, instance_uuid):
        """Leave a running guest paused as a broken hand-over does: `locate` then says PAUSED, MIGRATION."""

    @abc.abstractmethod
    def power_off(self, driver, instance_uuid):
        """Cut the guest's power, or let it power itself off, whether it migrates or not, past the driver."""

    @abc.abstractmethod
    def carry(self, instance_uuid):
        """Bring a guest that is off and on shared storage from a to b by hand, and start it there, all past the drivers."""

    @abc.abstractmethod
    def export(self, writable=True) -> volume_facts.Connection:
        """Export a new small volume, which both hosts reach."""

    @abc.abstractmethod
    def set_export(self, connection, answers):
        """Let the array of an export fail as if it lost its power, or come back with what was on it."""

    @abc.abstractmethod
    def close(self):
        """Remove guests, files and drivers."""


def plan_for(source, destination, instance_uuid, bandwidth_mib=0, migration_id=None):
    """Make the plan of a live migration from what the two checks say, as the conductor does.

    source, destination: started drivers. Every file disk that is writable and whose directory has another identity at the
    destination is copied.
    """
    guest = guest_of(source, instance_uuid)
    there = destination.check_can_live_migrate_destination(guest)
    here = source.check_can_live_migrate_source(guest)
    local = tuple(d for d in here.disks if d.kind == 'file' and not d.readonly)
    copy = tuple(d.target for d in local if here.storage.get(d.directory) != there.storage.get(d.directory))
    return facts.Plan(migration_id=migration_id or str(uuid.uuid4()), instance_uuid=instance_uuid,
                      source_host=source.host, destination_host=destination.host,
                      connection_uri=there.connection_uri, migration_host=there.migration_host, listen_address=there.listen_address,
                      disks=local, copy=copy, bandwidth_mib=bandwidth_mib, memory_mib=here.memory_mib)


def guest_of(driver, instance_uuid):
    """Give the guest's entry in the host's inventory, None if it is not in it."""
    found = [g for g in driver.inventory() if g.uuid == instance_uuid]
    if len(found) > 1:
        raise AssertionError(f'{instance_uuid} is {len(found)} times in the inventory of {driver.host}')
    return found[0] if found else None


def wait_for(condition, what, seconds):
    """Call `condition` until it is true and return its value; AssertionError naming `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f'{what}: not within {seconds} s')
        time.sleep(0.02)


def where(harness, instance_uuid):
    """Say what both hosts know of a guest: a pair of states, of a and of b."""
    return harness.a.locate(instance_uuid).state, harness.b.locate(instance_uuid).state


AT_A = (GuestState.RUNNING, GuestState.ABSENT)
AT_B = (GuestState.ABSENT, GuestState.RUNNING)
NOWHERE = (GuestState.ABSENT, GuestState.ABSENT)
OFF_AT_A = (GuestState.OFF, GuestState.ABSENT)
