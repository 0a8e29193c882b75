"""What may go wrong in the model, each a fault: messages, conductors, agents, hosts. And how hosts come back, which is none."""
from migrator.conductor import stimulus
from tests.model.state import BUSY, CUT, DARK, DEAD, DESTINATION, LIFELESS, ROLES, SOURCE, UP

#: Kinds of faults.
KINDS = ('messages', 'operations', 'conductors', 'hosts', 'power', 'blackout')


class Trouble:
    """The half of a Model that breaks things. Late and reordered messages are no faults: messages lie in sets anyway."""

    def failures(self, state):
        """Give every (name, next state) that takes one fault."""
        if state.faults >= self.faults:
            return
        worse = state._replace(faults=state.faults + 1)
        for kind in KINDS:
            if kind in self.kinds:
                yield from getattr(self, kind)(worse)

    def conductors(self, worse):
        """A conductor dies with what it had in hand, or freezes."""
        if worse.tasks:
            yield 'conductor dies', worse._replace(tasks=frozenset())
            if not worse.cursor.status.terminal:
                # Frozen beyond its claim: another one takes over, and then it wakes and does what it had in hand.
                yield 'conductor freezes', self.decide(worse, stimulus.Due())

    def hosts(self, worse):
        """A host is cut off, its agent refuses all work or dies."""
        for role in ROLES:
            if worse.host(role) == UP:
                yield f'{role} is cut off', worse.with_host(role, CUT)
                yield f'{role} refuses all work', worse.with_host(role, BUSY)
                yield f'{role} agent dies', self.die(worse, role)
                yield f'{role} agent dies, its journal is lost', self.forget(self.die(worse, role), role)

    def power(self, worse):
        """A host loses its power, and with it the guest if that runs there. What others hear of a job is that it failed."""
        for role in ROLES:
            if worse.host(role) == UP and not (worse.cursor.status.terminal and not worse.debts):
                for hv in self.world.power_off(worse.world, role):
                    yield f'{role} loses its power', self.job_ends(self.die(worse, role).with_host(role, DARK)._replace(world=hv), 'failed')

    def blackout(self, worse):
        """Both hosts lose their power, the source a moment before, so that the guest may have arrived for that moment."""
        if worse.hosts != (UP, UP) or (worse.cursor.status.terminal and not worse.debts):
            return
        dark = self.die(self.die(worse, SOURCE), DESTINATION)._replace(hosts=(DARK, DARK))
        for half in self.world.power_off(worse.world, SOURCE):
            for hv in self.world.power_off(half, DESTINATION):
                yield 'both hosts lose their power', self.job_ends(dark._replace(world=hv), 'failed')

    def messages(self, worse):
        """Requests and reports are lost, or come twice."""
        for request in worse.requests:
            yield 'request lost', worse._replace(requests=worse.requests - {request})
            if worse.host(request.role) == UP:
                _name, after = self.arrive(worse, request)
                yield 'request doubled', after._replace(requests=after.requests | {request})
        for op in worse.reports:
            yield 'report lost', worse._replace(reports=worse.reports - {op})
            yield 'report doubled', self.report(worse, op)

    def operations(self, worse):
        """An operation fails before or after it took effect; is refused; or its agent dies in it."""
        for op in worse.journal:
            if op.state != 'accepted' or worse.host(op.role) in LIFELESS or self.taken(worse, op.role):
                continue
            if op.epoch < worse.seen[ROLES.index(op.role)]:
                continue
            yield f'{op.method} fails', self.finish(worse, op, 'failed')
            if self.world.untouched(op.method, worse.world):
                yield f'{op.method} is refused, nothing touched', self.finish(worse, op, 'refused')
            for hv, _well, result in self.world.ways(op.method, worse.world):
                if op.method not in self.world.jobs or result:
                    yield f'{op.method} takes effect and fails', self.finish(worse._replace(world=hv), op, 'failed')
                yield f'{op.role} agent dies in {op.method}', self.die(worse._replace(world=hv), op.role)

    def die(self, state, role):
        """An agent dies. What it did is as journal and hypervisor have it. What was meant for it is refused by the next."""
        state = state.with_host(role, DEAD)._replace(world=self.world.agent_dies(state.world, role))
        if not self.processes:
            return state
        tasks = {t for t in state.tasks if t.kind == 'send' and self.role(t.step) == role}
        return state._replace(requests=frozenset(r for r in state.requests if r.role != role), tasks=state.tasks - tasks)

    @staticmethod
    def forget(state, role):
        """An agent's journal is lost, and with it what was not told, and which requests are outdated."""
        return state._replace(journal=frozenset(o for o in state.journal if o.role != role),
                              reports=frozenset(o for o in state.reports if o.role != role),
                              seen=(0, state.seen[1]) if role == ROLES[0] else (state.seen[0], 0))

    def recover(self, state):
        """Give every (name, next state) in which a host is back, or somebody says that it is off.

        What the agent of one that is back had not ended is interrupted, and will be told. An attestation is true when it is made.
        """
        for role in ROLES:
            if state.host(role) in (CUT, BUSY):
                yield f'{role} is back', state.with_host(role, UP)
            elif state.host(role) in LIFELESS:
                if state.host(role) == DARK and role not in state.attested and not state.cursor.status.terminal:
                    yield f'{role} is attested to be off', self.decide(state._replace(attested=state.attested | {role}), stimulus.Recover())
                lost = {o for o in state.journal if o.role == role and o.state in ('accepted', 'running')}
                cut = {o._replace(state='interrupted') for o in lost}
                yield f'{role} agent is back', state.with_host(role, UP)._replace(
                    attested=state.attested - {role}, journal=state.journal - lost | cut, reports=state.reports | cut)
