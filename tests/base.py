"""What every test builds on: a time-out, directories of its own, captured logs, fresh options, and waiting without sleeping."""
import logging
import os
import pathlib
import tempfile
import time

import fixtures
import testtools
from oslo_config import cfg
from oslo_config import fixture as config_fixture

from migrator import config


class TestCase(testtools.TestCase):
    """Base of all tests.

    timeout: seconds after which a test fails, multiplied by MIGRATOR_TEST_TIMEOUT_SCALE (for slow machines). `self.conf` is the
    fixture over the global options, set back after the test; `self.temp_dir` a directory of the test's own. Logs from DEBUG up are
    shown when the test fails.
    """

    timeout = 60

    def setUp(self):
        super().setUp()
        scale = float(os.environ.get('MIGRATOR_TEST_TIMEOUT_SCALE', '1'))
        self.useFixture(fixtures.Timeout(max(1, int(self.timeout * scale)), gentle=True))
        self.useFixture(fixtures.NestedTempfile())
        self.temp_dir = pathlib.Path(tempfile.mkdtemp())
        self.log = self.useFixture(fixtures.FakeLogger(level=logging.DEBUG, format='%(asctime)s %(levelname)s %(name)s %(message)s'))
        for chatty in ('amqp', 'oslo.messaging._drivers', 'alembic', 'sqlalchemy'):
            logger = logging.getLogger(chatty)
            self.addCleanup(logger.setLevel, logger.level)
            logger.setLevel(logging.WARNING)
        config.register(cfg.CONF)
        self.conf = self.useFixture(config_fixture.Config(cfg.CONF))
        self.conf.conf([], project='migrator', default_config_files=[])
        self.conf.config(state_path=str(self.temp_dir))

    def options(self, group=None, **values):
        """Set options for this test, such as self.options('compute', driver='fake')."""
        self.conf.config(group=group, **values)

    def wait_for(self, condition, what, timeout=20.0, interval=0.02):
        """Call `condition` until it returns something true, and return that.

        what: in words, for the failure. timeout and interval: seconds. Fails the test with the last value when the time is over.
        """
        deadline = time.monotonic() + timeout
        while True:
            value = condition()
            if value:
                return value
            if time.monotonic() > deadline:
                self.fail(f'waited {timeout} s for {what}; the last value was {value!r}')
            time.sleep(interval)
