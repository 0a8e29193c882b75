"""How errors are worded: one line, whatever a remote side put into its text, and wrong usage as a typed error like any other."""
from migrator import exceptions


def one_line(text):
    """Fold text into one line without control characters."""
    folded = ' '.join(str(text).split())
    return ''.join(c if c.isprintable() else '?' for c in folded)


def usage_error(prog):
    """Make what a parser does about wrong usage: raise InvalidRequest with the way to the help, where argparse would exit."""
    def error(message):
        raise exceptions.InvalidRequest(f'{message}; see {prog} --help')
    return error
