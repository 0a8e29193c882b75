"""The volume agent's sign of life: one message an interval with all its backends and how its mirrors and copies get on.

An array that does not answer is told as offline, in words, and holds up neither the heartbeat nor the other arrays.
"""
import functools
import time

from migrator.rpc import context as rpc_context
from migrator.rpc import contract, facts
from migrator.rpc import volume_facts as vf
from migrator.rpc.beating import LEAST_PATIENCE, Beating, Question


class HeartbeatLoop(Beating):
    """Sends the heartbeats of one agent process.

    backends: backends.Backends. manager: VolumeManager (its jobs). operations: OperationServer (whether it drains). conductor:
    AgentToConductorAPI. host, process_id, host_boot_id: who we are. interval: seconds between two heartbeats. progress_interval: least
    seconds between two questions for the progress of one job. clock: monotonic; each request's `not_after` is computed from it.
    """

    def __init__(self, backends, manager, operations, conductor, host, process_id, host_boot_id, interval, progress_interval,
                 clock=time.monotonic):
        super().__init__(interval, clock)
        self._backends = backends
        self._manager = manager
        self._operations = operations
        self._conductor = conductor
        self._who = {'host': host, 'process_id': process_id, 'host_boot_id': host_boot_id, 'rpc_version': contract.VOLUME_VERSION}
        self._patience = max(LEAST_PATIENCE, interval)
        self._progress_interval = progress_interval
        self._sequence = 0
        self._progress = {}              # migration id -> (when it was asked for, Progress as a dict)
        self._questions = {}             # migration id -> Question for its progress

    def beat(self):
        """Send one heartbeat; returns True if it is known to have arrived. Raises nothing that the next one may cure."""
        with self._beating, rpc_context.using(rpc_context.MigratorContext(overwrite=False)) as context:
            # Before the room: what has arrived by then is seen in it, so nobody is given room that data on its way will take.
            jobs, copies = self._jobs(), self._manager.kept_copies()[:facts.MAX_PROGRESS]
            found = self._backends.describe(self._patience)
            self._sequence += 1
            beat = vf.VolumeHeartbeat(sequence=self._sequence, monotonic=self._clock(), draining=self._operations.draining,
                                      looked=self._backends.looked(), backends=found, progress=jobs, copies=copies, **self._who)
            answer = self._said(self._sequence, self._conductor.volume_heartbeat, context, beat)
            self._manager.forget_copies(*([m for m in (answer or {}).get(name, ()) if m in copies] for name in ('ended', 'unknown')))
            return answer is not None

    def _jobs(self):
        """Give {migration id: Progress as a dict} of what moves data now, each asked for once a progress_interval at most.

        All are asked at once: an array that does not answer would hold up the next, and its own next mirror. Of those that do not answer in
        time the last word is told again.
        """
        now, jobs = self._clock(), list(self._manager.jobs())[:facts.MAX_PROGRESS]
        self._progress = {migration: known for migration, known in self._progress.items() if migration in jobs}
        self._questions = {migration: self._questions.get(migration) or Question(
            f'who moves the data of migration {migration}', functools.partial(self._manager.progress, migration)) for migration in jobs}
        due = [m for m in jobs if m not in self._progress or now - self._progress[m][0] >= self._progress_interval]
        for migration in due:
            self._questions[migration].put()
        for migration in due:
            found = self._questions[migration].answer(max(0.0, now + self._patience - self._clock()))
            if found is not None and found.active:
                self._progress[migration] = (now, facts.to_wire(found))
        return {migration: progress for migration, (_, progress) in self._progress.items()}
