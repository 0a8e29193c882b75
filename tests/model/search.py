"""Walks over every state that the model of a workflow can reach within bounds, and over every way on from there.

    python -m tests.model.search [--faults N] [--attempts N] [--kinds KIND,...] [WORKFLOW...]

Safety: the invariants hold in every state. Liveness: from every state there is a way to an end on which nothing fails any more and hosts
come back; so every run ends in which whatever stays possible happens at last. And where hosts do not come back, from every
state there is a way to an end or to needs_operator. Printed are the numbers of states, of transitions, and of ends by status.
"""
import argparse
import array
import collections
import time

from migrator.conductor.workflows import WORKFLOWS
from migrator.states import Status
from tests.model.state import UP, Broken, Canonical
from tests.model.trouble import KINDS
from tests.model.worlds import model_of

LOCK = 'no lock survives a terminal status'
ENDS = 'every run ends once messages flow and hosts answer'
#: Added to the status of an end at which nobody knows where the guest is.
LOST = ' with both hosts'
OPERATOR = 'a run that cannot end stands in needs_operator'


class Result:
    """What a search found. broken: (invariant, in which way, the steps that led there) or None."""

    def __init__(self):
        self.visited = 0
        self.transitions = 0
        self.ends = collections.Counter()
        self.broken = None

    def __str__(self):
        ends = ', '.join(f'{status} {count}' for status, count in sorted(self.ends.items()))
        return f'{self.visited} states, {self.transitions} transitions; ends: {ends}'


class Parts:
    """Numbers the parts of states. A part that is the very object of an earlier state is found without being hashed again."""

    def __init__(self):
        self.known = {}                     # (type, part) -> (number, the part, so that it lives and its id stays its own)
        self.by_id = {}

    def all(self, state):
        """Give the numbers of all parts of a state."""
        numbers = tuple(map(self.by_id.get, map(id, state)))
        return numbers if None not in numbers else tuple(map(self.number, state))

    def number(self, part):
        """Give the number of a part."""
        number = self.by_id.get(id(part))
        if number is None:
            number, kept = self.known.setdefault((type(part), part), (len(self.known), part))
            self.by_id[id(kept)] = number
        return number


class Search:
    """One search, breadth first, so that the way to what is broken is a short one. limit: how many states it may find."""

    def __init__(self, model, limit=5_000_000):
        self.model = model
        self.limit = limit
        self.result = Result()
        self.numbers = {}                   # state, as the numbers of its parts -> its number
        self.parts = Parts()
        self.canonical = Canonical()
        self.states = []
        self.came_from = []                 # number -> (number, name of the step), or None
        self.back = []                      # number -> numbers from which one comes here without a fault
        self.returns = []                   # the same, when a host comes back

    def run(self):
        """Visit every state. Returns a Result; stops at the first invariant that does not hold."""
        for state in self.model.first():
            self.number(self.canonical(state), None)
        here = 0
        try:
            while here < len(self.states):
                state = self.states[here]
                self.check(state)
                self.walk(here, self.model.steps(state), self.back)
                self.walk(here, self.model.recover(state), self.returns)
                self.walk(here, self.model.failures(state), None)
                here += 1
            self.check_liveness()
        except Broken as error:
            self.result.broken = (error.name, str(error), self.way_to(getattr(error, 'state', here)))
        self.result.visited = len(self.states)
        self.result.ends.update(s.cursor.status.value + (LOST if s.lost else '') for s in self.states if s.cursor.status.terminal)
        return self.result

    def walk(self, here, steps, back):
        """Note where steps lead. back: the list of ways back that they belong to; None for faults, which nobody may hope for."""
        for name, after in steps:
            self.result.transitions += 1
            there = self.number(self.canonical(after), (here, name))
            if back is not None and there != here and not name.startswith('FAULT'):
                back[there].append(here)

    def number(self, state, came_from):
        """Give the number of a state, a new one if it is new."""
        number = self.numbers.setdefault(self.parts.all(state), len(self.states))
        if number == len(self.states):
            if number >= self.limit:
                raise OverflowError(f'more than {self.limit} states')
            self.states.append(state)
            self.came_from.append(came_from)
            self.back.append(array.array('l'))
            self.returns.append(array.array('l'))
        return number

    def check(self, state):
        """Raise Broken for an invariant that does not hold in a state."""
        world, status = self.model.world, state.cursor.status
        for name, how in world.violations(state.world, state.catalogue):
            raise Broken(name, how)
        if status.terminal == state.locked:
            raise Broken(LOCK, f'{status.value}, and the lock is {"held" if state.locked else "free"}')
        if status.terminal:
            for name, how in world.at_end(state.world, state.catalogue, status, state.debts):
                raise Broken(name, how)

    # --- liveness ---

    def check_liveness(self):
        """Raise Broken for a state from which no way leads to where it must."""
        self.demand(ENDS, self.settled, (self.back, self.returns), lambda state: True)
        self.demand(OPERATOR, self.named, (self.back,), lambda state: state.hosts != (UP, UP))

    def settled(self, state):
        """True at an end with nothing owed any more; or where a person is needed and asked for."""
        if self.model.world.hopeless(state.world) and state.cursor.status is Status.NEEDS_OPERATOR:
            return True
        if state.lost and self.model.world.passed(state.world):
            return True             # the destination refuses its cleanup, which is shown, and keeps the guest from being started
        return state.cursor.status.terminal and not state.debts

    def named(self, state):
        """True where an operator can see that it has ended, or that he is needed."""
        return state.cursor.status.terminal or state.cursor.status is Status.NEEDS_OPERATOR

    def demand(self, name, good, ways, concerned):
        """Raise Broken unless every state that is concerned has a way to a good one."""
        queue = [number for number, state in enumerate(self.states) if good(state)]
        reached = bytearray(len(self.states))
        for number in queue:
            reached[number] = 1
        while queue:
            number = queue.pop()
            for back in ways:
                for before in back[number]:
                    if not reached[before]:
                        reached[before] = 1
                        queue.append(before)
        for number, state in enumerate(self.states):
            if not reached[number] and concerned(state):
                error = Broken(name, f'no way on from {state}')
                error.state = number
                raise error

    def way_to(self, number):
        """Give the names of the steps that led to a state."""
        names = []
        while self.came_from[number]:
            number, name = self.came_from[number]
            names.append(name)
        return names[::-1]


def search(model, limit=5_000_000):
    """Visit every state of a model; returns a Result. OverflowError if there are more than `limit`."""
    return Search(model, limit).run()


def main():
    """Search and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--faults', type=int, default=2)
    parser.add_argument('--attempts', type=int, default=2)
    parser.add_argument('--kinds', default=','.join(KINDS), help=f'kinds of faults; default: {",".join(KINDS)}')
    parser.add_argument('workflows', nargs='*', metavar='WORKFLOW', default=list(WORKFLOWS))
    arguments = parser.parse_args()
    broken = False
    for kind in arguments.workflows:
        began = time.monotonic()
        result = search(model_of(kind, faults=arguments.faults, attempts=arguments.attempts, kinds=arguments.kinds.split(',')))
        print(f'{kind}, {arguments.faults} faults of {arguments.kinds}: {result} ({time.monotonic() - began:.1f} s)', flush=True)
        if result.broken:
            broken = True
            print('BROKEN:', result.broken[1], *result.broken[2], sep='\n  ')
    return 1 if broken else 0


if __name__ == '__main__':
    raise SystemExit(main())
