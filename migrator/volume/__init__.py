"""Volume agents (design, section 4). They arrive with the volume workflows; nothing here is installed as a service yet."""
