"""From options, environment and configuration file to a client of the conductors. Imported late: messaging is slow to load."""
import getpass
import logging
import os
import pathlib
import warnings

from oslo_config import cfg

from migrator import exceptions

DEFAULT_FILE = pathlib.Path('/etc/migrator/migrator.conf')
URL_VARIABLE = 'MIGRATOR_TRANSPORT_URL'


def conductor_api(config_files=(), transport_url=None, environ=os.environ, default_file=DEFAULT_FILE):
    """Make a ConductorAPI; it connects on first use.

    config_files: paths; without any, the default file is read if it is there. transport_url: broker; None takes the variable
    MIGRATOR_TRANSPORT_URL, then the configuration. Raises InvalidRequest for a file or URL that cannot be used.
    """
    os.environ.setdefault('EVENTLET_NO_GREENDNS', 'yes')  # a fifth of a second, for nothing: nothing is patched here
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # oslo's libraries import eventlet if they find it, which complains of itself
        from migrator import config
        from migrator.rpc import conductor, transport
    logging.captureWarnings(True)
    conf = config.register(cfg.CONF)
    files = [str(path) for path in config_files] or [str(path) for path in (default_file,) if path.exists()]
    try:
        conf([], project='migrator', prog='migrator', default_config_files=files, default_config_dirs=[])
    except cfg.ConfigFilesNotFoundError as error:
        raise exceptions.InvalidRequest(f'there is no configuration file {", ".join(error.config_files)}') from None
    except cfg.ConfigFilesPermissionDeniedError as error:
        raise exceptions.InvalidRequest(f'the configuration file {", ".join(error.config_files)} may not be read') from None
    except (cfg.Error, OSError, UnicodeDecodeError) as error:
        raise exceptions.InvalidRequest(f'the configuration cannot be used: {" ".join(str(error).split())}') from None
    bus = transport.get_transport(conf, transport_url or environ.get(URL_VARIABLE) or None)
    return conductor.ConductorAPI(conf, bus, user=user_name())


def user_name():
    """Give the name under which requests are recorded."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a uid without a name, as in a container
        return f'uid {os.getuid()}'
