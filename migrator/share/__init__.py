"""Share agents (design, section 4). They arrive with the share workflows; nothing here is installed as a service yet."""
