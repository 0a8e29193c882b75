"""What a scripted driver of any kind does: it notes its calls, and waits, answers or fails where a test says so."""
from migrator import concurrency
from tests.unit.rpc import support


class Script:
    """Notes every call, and waits, answers or fails where a test says so."""

    def __init__(self):
        self.calls = []
        self.results = {}                 # method -> what it returns, or an exception to raise
        self.gates = {}                   # method -> native event that it waits for
        self.entered = {}                 # method -> native event that it sets

    def hold(self, method):
        """Let `method` wait; gives the event that says that it was entered, and the one that lets it go on. Never wait for the first."""
        self.gates[method], self.entered[method] = concurrency.native_event(), concurrency.native_event()
        return self.entered[method], self.gates[method]

    def release(self):
        """Let everything go on."""
        for gate in list(self.gates.values()):
            gate.set()

    def did(self):
        """The names of what was called, in order."""
        return [call[0] for call in self.calls]

    def do(self, method, *args, default=None):
        """Be called."""
        self.calls.append((method, *args))
        if method in self.gates:
            self.entered[method].set()
            self.gates[method].wait(support.DEADLINE)
        result = self.results.get(method, default)
        if isinstance(result, Exception):
            raise result
        return result
