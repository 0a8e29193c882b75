"""The compute agent's sign of life: one message an interval with what changed on the host and how its migrations get on.

The first heartbeat of a process, every twentieth, each after one that may have been lost, and each that the conductor asks for lists
every guest; the others only what changed. A hypervisor that cannot be asked changes nothing: silence about guests is never sent as
their absence. A list that is too large for one message goes in several (compute.parts).
"""
import dataclasses
import time

from oslo_log import log

from migrator.compute import parts
from migrator.rpc import context as rpc_context
from migrator.rpc import contract, facts
from migrator.rpc.beating import LEAST_PATIENCE, Beating, Question
from migrator.rpc.steps import run_driver

LOG = log.getLogger(__name__)

#: Every how manieth heartbeat lists all guests, whether anything was lost or not.
FULL_EVERY = 20

#: Least seconds between two questions for the progress of one job, unless the configuration says otherwise.
PROGRESS_INTERVAL = 1.0


class HeartbeatLoop(Beating):
    """Sends the heartbeats of one agent process.

    driver: compute.driver.ComputeDriver. manager: ComputeManager (its jobs). operations: OperationServer (whether it drains).
    conductor: AgentToConductorAPI. host, process_id, host_boot_id: who we are. interval: seconds between two heartbeats.
    progress_interval: least seconds between two questions for the progress of one job. clock: monotonic; the conductor computes each
    request's `not_after` from it. notes: gives {uuid: words} of what is to be said about guests.
    """

    def __init__(self, driver, manager, operations, conductor, host, process_id, host_boot_id, interval,
                 progress_interval=PROGRESS_INTERVAL, clock=time.monotonic, notes=dict):
        super().__init__(interval, clock)
        self._driver = driver
        self._manager = manager
        self._operations = operations
        self._conductor = conductor
        self._who = {'host': host, 'process_id': process_id, 'host_boot_id': host_boot_id, 'rpc_version': contract.COMPUTE_VERSION}
        self._progress_interval = progress_interval
        self._notes = notes
        self._sequence = 0
        self._beats = 0
        self._odd = set()                # uuids that are none, remarked on already
        self._sizes = {}                 # uuid -> parts.Sized, as it was measured last
        self._full_next = True
        self._known = {}                 # uuid -> Guest, as the last heartbeat that arrived left it
        self._facts = facts.Host()       # what the hypervisor last said
        self._progress = {}              # migration id -> (when it was asked for, the last active Job as a dict, {} before the first)
        self._question = Question('the hypervisor', self._look, clock)

    def beat(self):
        """Send one heartbeat, or as many as the list of guests needs; returns True if all are known to have arrived.

        Raises nothing that the next one may cure.
        """
        with self._beating, rpc_context.using(rpc_context.MigratorContext(overwrite=False)) as context:
            found = self._ask_driver()
            self._beats += 1
            full = found is not None and (self._full_next or self._beats % FULL_EVERY == 0)
            lists = self._changes(found) if found is not None and not full else [{}]
            if full or lists is None:
                full, lists = True, self._everything(found)
            progress = {m: job for m, (_, job) in self._progress.items() if job}
            resync = False
            for number, values in enumerate(lists):
                answer = self._send(context, progress={} if number else progress, **values)
                if answer is None:
                    self._full_next = True
                    return False
                resync = resync or bool(answer.get('resync'))
            if found is not None:
                self._known = found
                self._full_next = self._full_next and not full
            self._full_next = self._full_next or resync
            return True

    def _send(self, context, **values):
        """Send one message; returns the conductor's answer, None if there was none or it was refused."""
        self._sequence += 1
        heartbeat = facts.Heartbeat(sequence=self._sequence, monotonic=self._clock(), looked=self._question.asked,
                                    draining=self._operations.draining, facts=self._facts, **values, **self._who)
        return self._said(self._sequence, self._conductor.heartbeat, context, heartbeat)

    def _ask_driver(self):
        """Give {uuid: Guest} of all guests, or None if the hypervisor cannot be asked or does not answer within an interval.

        A hypervisor that hangs is asked no second time before it has answered the first; the heartbeat goes on without it.
        """
        answer = self._question.answer(max(LEAST_PATIENCE, self._interval))
        if answer is None:
            return None
        self._facts, guests, self._progress = answer
        return self._nameable(guests)

    def _nameable(self, guests):
        """Give {uuid: Guest}, without those whose uuid nobody could use."""
        odd = {guest.uuid for guest in guests if not facts.UUID.match(guest.uuid)}
        for uuid in odd - self._odd:
            LOG.error('instance %r is left out: that is no uuid', uuid)
        self._odd = odd
        return {guest.uuid: guest for guest in guests if guest.uuid not in odd}

    def _look(self):
        notes = self._notes()
        guests = [dataclasses.replace(guest, note=notes[guest.uuid]) if guest.uuid in notes else guest
                  for guest in run_driver(self._driver.inventory)]
        return run_driver(self._driver.host_facts), guests, self._jobs()

    def _changes(self, found):
        """Give the one message that tells what has changed, in a list; None if it would be too large: then everything is told in parts."""
        changed = [self._measured(guest) for uuid, guest in found.items() if self._known.get(uuid) != guest]
        gone = tuple(uuid for uuid in self._known if uuid not in found)
        if sum(one.size for one in changed) + len(gone) * parts.NAME_BYTES > parts.PART_BYTES:
            return None
        return [{'guests': parts.told(changed)[0], 'gone': gone}]

    def _everything(self, found):
        """Give the messages that list all guests."""
        self._sizes = {uuid: one for uuid, one in self._sizes.items() if uuid in found}
        lists = parts.split([self._measured(guest) for guest in found.values()])
        if lists[0].whole:
            return [{'full': True, 'guests': lists[0].guests}]
        return [{'complete': True, 'guests': p.guests, 'named': p.named, 'above': p.above, 'upto': p.upto} for p in lists]

    def _measured(self, guest):
        """Measure a guest, once for as long as it stays as it is. One that cannot be described is remarked on once."""
        before = self._sizes.get(guest.uuid)
        if before is not None and before.guest == guest:
            return before
        now = self._sizes[guest.uuid] = parts.sized(guest)
        if now.why and not (before and before.why):
            LOG.error('instance %s (%s) cannot be described to the conductor, which is told only that it is there: %s',
                      guest.name, guest.uuid, now.why)
        return now

    def _jobs(self):
        """Give `_progress` anew, each job asked for once a progress_interval at most.

        A driver that cannot tell, or whose job has just ended, gives an inactive Job; what was known before is worth more.
        """
        now = self._clock()
        jobs = self._manager.jobs()
        progress = {migration: known for migration, known in self._progress.items() if migration in jobs}
        old = [migration for migration in jobs if migration not in progress or now - progress[migration][0] >= self._progress_interval]
        # One trip to a native thread for all of them: with hundreds of jobs the trips cost more than the questions.
        answers = run_driver(lambda: [self._driver.progress(jobs[migration]) for migration in old]) if old else ()
        for migration, job in zip(old, answers, strict=True):
            progress[migration] = (now, facts.to_wire(job) if job.active else progress.get(migration, (now, {}))[1])
        return progress
