"""What the clients of all agents have in common: requests of the contract with dataclasses in and out."""
from migrator import exceptions
from migrator.rpc import facts
from migrator.rpc.transport import Client


class AgentAPI:
    """A client of one kind of agents.

    topic, table, version: of the contract. pinned: what [upgrade_levels] says, 'auto' or a version. lowest: gives the highest version that
    all live agents of the kind understand, '' for any.
    """

    def __init__(self, transport, topic, table, version, pinned, lowest):
        self._client = Client(transport, topic, table, version, lowest if pinned == 'auto' else lambda: pinned,
                              broken=exceptions.AgentError)

    def _start(self, context, host, name, envelope, **arguments):
        """Call then spawn: returns the acknowledgement, a Report."""
        return self._ask(facts.Report, context, host, name, envelope=facts.to_wire(envelope), **arguments)

    def _ask(self, answer, context, host, name, **arguments):
        """Call; returns the answer as a dataclass of class `answer`."""
        data = self._client.call(context, name, server=host, **arguments)
        try:
            return facts.from_wire(answer, data)
        except exceptions.InvalidRequest as error:  # the answer is at fault, not the caller
            raise exceptions.AgentError(f'{host} answered {name} with what cannot be read: {error}') from None

    def _yes(self, context, host, name, **arguments):
        """Call; returns the answer as a bool."""
        return bool(self._client.call(context, name, server=host, **arguments))
