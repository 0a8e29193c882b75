"""The conductor's faces on the bus that are about arrays and volumes: what users ask, and what volume agents tell."""
from migrator.conductor import places
from migrator.conductor.db import backends, volume_views
from migrator.rpc import contract, facts, server, volume_facts


class VolumeEndpoint:
    """What an API tier or the command line may call about volumes; the contract is `migrator.rpc.contract.CONDUCTOR`."""

    target = server.target(contract.CONDUCTOR_VERSION)

    def __init__(self, database, settings):
        """settings: the [conductor] group of the configuration."""
        self.database = database
        self.settings = settings

    # --- backends ---

    @server.exposed(contract.CONDUCTOR)
    def backends(self, context):
        """All backends, by name."""
        def read(tx):
            counted = backends.counts(tx)
            return [volume_views.backend_view(place, counted, self.settings.host_down_after) for place in backends.listing(tx)]
        return self.database.run(read)

    @server.exposed(contract.CONDUCTOR)
    def backend_show(self, context, backend):
        """One backend with its pools."""
        host, name = places.backend_of(backend)
        return self.database.run(lambda tx: volume_views.backend_view(
            backends.get(tx, host, name), backends.counts(tx), self.settings.host_down_after))


class VolumeAgentEndpoint:
    """What volume agents may call beside what all agents may; the contract is `migrator.rpc.contract.AGENT`."""

    target = server.target(contract.AGENT_VERSION, contract.AGENT_NAMESPACE)

    def __init__(self, inventory):
        """inventory: conductor.volume_inventory.VolumeInventory."""
        self.inventory = inventory

    @server.exposed(contract.AGENT)
    def volume_heartbeat(self, context, heartbeat):
        """Take a heartbeat of a volume agent."""
        self.inventory.heartbeat(facts.from_wire(volume_facts.VolumeHeartbeat, heartbeat, 'heartbeat'))
        return {}
