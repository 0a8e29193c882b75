"""Volume agents (design, section 4): the drivers' contract, the driver `qsd`, and the copier.

The agent that runs them comes with the volume workflows; nothing here is installed as a service yet.
"""
import pathlib


def copier_path():
    """Give the path of the copier, a program for the system's Python."""
    return str(pathlib.Path(__file__).with_name('copier'))
