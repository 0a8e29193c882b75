"""migrator: moves virtual machines, volumes and shares between hosts while people keep using them."""
