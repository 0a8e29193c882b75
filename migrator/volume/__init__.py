"""Volume agents: their endpoint, the drivers of arrays, and the host copy."""
import pathlib


def copier_path():
    """Give the path of the copier, a program for the system's Python."""
    return str(pathlib.Path(__file__).with_name('copier'))
