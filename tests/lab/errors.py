"""The one error of the lab, in words that its operator can act on."""


class LabError(Exception):
    """Something that the lab was asked for cannot be done; the message says what and why."""
