"""The demonstration's plot, the same on every stage: a guest is created, live-migrated there and back while it writes, and looked after.

Nothing is taken for granted: each thing that is shown as right has been checked, and a single wrong one makes the demonstration fail.
"""
import abc
import dataclasses
import time

from migrator.states import Status
from tests.demo import signals
from tests.demo.show import moment


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that was checked."""

    good: bool
    text: str


class Failed(Exception):
    """The demonstration cannot go on; the message says why."""


def wait_until(condition, seconds, what, interval=0.02):
    """Wait until condition() gives something true, and return that. Raises Failed naming `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise Failed(f'waited {seconds:g} s in vain for {what}')
        signals.check()
        time.sleep(interval)


class Stage(abc.ABC):
    """Where the story is played. api: ConductorAPI. hosts: names of the two hosts. patience: seconds that anything may take at most.

    interval: seconds between two looks at a migration. options: of each live migration, as ConductorAPI.live_migrate has them.
    """

    api = None
    options = None
    hosts = ()
    patience = 30.0
    interval = 0.1

    def hosts_up(self):
        """Names of the hosts that the conductor knows to be up."""
        return {host['name'] for host in self.api.hosts() if host['state'] == 'up'}

    @abc.abstractmethod
    def spec(self):
        """Give the guest to create: facts.InstanceSpec as a dict."""

    @abc.abstractmethod
    def guest_words(self):
        """What the guest does, in words with numbers that rise as long as it lives."""

    @abc.abstractmethod
    def guest_count(self):
        """How much the guest has done since its start; it must rise all the time."""

    @abc.abstractmethod
    def wait_alive(self):
        """Wait until the guest works. Raises Failed if it does not."""

    @abc.abstractmethod
    def before_move(self):
        """Take note of the state in which the guest leaves; what is returned goes to `after_move`."""

    @abc.abstractmethod
    def after_move(self, before, view):
        """Give what the guest itself shows of its move: pairs of a name and a value."""

    @abc.abstractmethod
    def inspect(self):
        """Look at hosts and disks behind the conductor's back; gives Findings."""


def tell(stage, show):
    """Play the story on `stage` before `show`. Returns True if everything was right."""
    first, second = stage.hosts
    findings = []
    spec = create(stage, show, first)
    for source, destination in ((first, second), (second, first)):
        findings += move(stage, show, spec, source, destination)
    show.heading('In the end')
    findings += [Finding(*pair) for pair in catalogue(stage, spec, first)]
    findings += stage.inspect()
    for finding in findings:
        show.finding(finding.good, finding.text)
    return all(finding.good for finding in findings)


def create(stage, show, host):
    """Create the guest and wait until it works; returns its spec."""
    spec = stage.spec()
    disk = spec['disks'][0]
    what = f'guest {spec["name"]} runs on {host}: {spec["memory_mib"]} MiB of memory, a disk of {disk["size"] >> 20} MiB on the host itself'
    with show.working(what):
        made = follow(stage, stage.api.instance_create(host, spec))
        if made['status'] != Status.COMPLETED:
            raise Failed(f'the guest could not be created: {made["error"] or made["reason"]}')
        stage.wait_alive()
    return spec


def follow(stage, view, update=lambda view: None):
    """Watch a migration until it has ended; returns it with its timeline. Raises Failed when it takes too long."""
    deadline = time.monotonic() + stage.patience
    while True:
        view = stage.api.show(view['id'])
        update(view)
        if Status(view['status']).terminal:
            return view
        if time.monotonic() > deadline:
            raise Failed(f'{view["kind"]} {view["id"]} is still {view["status"]} after {stage.patience:g} s: {view["reason"]}')
        signals.check()
        time.sleep(stage.interval)


def move(stage, show, spec, source, destination):
    """Live-migrate the guest, show how it goes, and give Findings."""
    limit = (stage.options or {}).get('bandwidth_mib')
    show.heading(f'Live migration of {spec["name"]} from {source} to {destination}' + (f', at {limit} MiB/s at most' if limit else ''))
    before, count = stage.before_move(), stage.guest_count()
    with show.copying() as display:
        asked = stage.api.live_migrate(spec['uuid'], destination, options=stage.options)
        view = follow(stage, asked, lambda now: display.update(now, stage.guest_words()))
    if view['status'] != Status.COMPLETED:
        show.timeline(view)
        raise Failed(f'the migration {view["status"]}: {view["error"] or view["reason"]}')
    stage.wait_alive()
    show.line('')
    show.fact('total time', f'{moment(view["finished_at"]) - moment(view["created_at"]):.2f} s')
    show.fact('downtime, by hypervisor', f'{view["statistics"].get("downtime_ms", 0)} ms')
    for name, value in stage.after_move(before, view):
        show.fact(name, value)
    show.timeline(view)
    return [Finding(stage.guest_count() > count, f'the guest worked on while it moved from {source} to {destination}')]


def catalogue(stage, spec, host):
    """What the conductor's database says of the guest: pairs for Findings."""
    known = stage.api.instance_show(spec['uuid'])
    yield known['host'] == host and known['state'] == 'running', f'the database has the guest {known["state"]} on {known["host"]}'
    yield not known['locked_by'] and not known['debts'], 'no lock is held, no cleanup is owed'
    attention = stage.api.list({'needs_attention': True})
    yield not attention, f'{len(attention)} migrations need attention'
