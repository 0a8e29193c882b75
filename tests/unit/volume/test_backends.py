"""The arrays of an agent: loaded by name, started when they can be reached, and refused in words."""
import fixtures
import testtools

from migrator import exceptions
from migrator.volume import backends
from migrator.volume.backends import Backend, Backends
from migrator.volume.drivers.qsd.driver import QsdDriver
from tests.unit.rpc import support
from tests.unit.volume.scripted import ScriptedArray


class LoadTest(testtools.TestCase):

    def conf(self, names, **groups):
        """Options with these backends. groups: backend -> options."""
        path = f'{self.useFixture(fixtures.TempDir()).path}/migrator.conf'
        with open(path, 'w', encoding='utf-8') as file:
            file.write(f'[volume]\nenabled_backends = {names}\n')
            for name, options in groups.items():
                file.write(f'[{name}]\n' + ''.join(f'{k} = {v}\n' for k, v in options.items()))
        conf = support.make_conf()
        conf(['--config-file', path], project='migrator')
        return conf

    def test_each_backend_has_a_group_of_its_own(self):
        conf = self.conf('one, two', one={'pools': 'fast:/srv/fast, slow:/srv/slow', 'listen_port': 10811, 'types': 'gold'},
                         two={'driver': 'qsd', 'pools': 'fast:/mnt', 'format': 'raw', 'array_id': 'x'})
        one, two = backends.load(conf, 'alpha').all()
        self.assertEqual(('one', ('gold',), '', 'two', (), 'x'), (one.name, one.types, one.array_id, two.name, two.types, two.array_id))
        self.assertIsInstance(one._driver, QsdDriver)
        self.assertEqual(({'fast': '/srv/fast', 'slow': '/srv/slow'}, 10811, 'qcow2', 'raw', 10809),
                         (one._driver.conf.pools, one._driver.conf.listen_port, one._driver.conf.format, two._driver.conf.format,
                          two._driver.conf.listen_port))

    def test_what_cannot_be_is_refused_in_words(self):
        pools = {'pools': 'fast:/srv'}
        for names, groups, word in (('', {}, 'enabled_backends'), ('a,a', {'a': pools}, 'once'), ('a/b', {}, 'a/b'),
                                    ('a', {'a': {**pools, 'driver': 'nonsense'}}, 'nonsense'), ('a', {}, 'pools'),
                                    ('a', {'a': {'pools': '../x:/srv'}}, '../x')):
            error = self.assertRaises(exceptions.InvalidRequest, backends.load, self.conf(names, **groups), 'alpha')
            self.assertIn(word, str(error))


class StartTest(testtools.TestCase):

    def setUp(self):
        super().setUp()
        self.log = self.useFixture(fixtures.FakeLogger())
        self.useFixture(fixtures.MonkeyPatch('migrator.volume.backends.FIRST_PAUSE', 0.02))
        self.good, self.bad = ScriptedArray(), ScriptedArray()
        self.backends = Backends([Backend('good', self.good), Backend('bad', self.bad)])
        self.addCleanup(self.backends.end)
        for array in (self.good, self.bad):
            self.addCleanup(array.script.release)

    def test_an_array_that_comes_late_is_online_then(self):
        self.bad.script.results['start'] = exceptions.DriverError('no such socket')
        self.backends.start()
        self.assertIs(self.good, self.backends.get('good').driver())
        error = self.assertRaises(exceptions.DriverError, self.backends.get('bad').driver)
        self.assertIn('no such socket', str(error))
        del self.bad.script.results['start']
        support.wait_for(lambda: not self.backends.get('bad').offline)
        self.assertIs(self.bad, self.backends.get('bad').driver())
        self.assertEqual(1, self.good.script.did().count('start'))

    def test_a_defect_of_one_driver_is_no_reason_to_do_without_the_others(self):
        self.bad.script.results['start'] = KeyError('oops')
        self.backends.start()
        self.assertEqual(('', True), (self.backends.get('good').offline, 'oops' in self.backends.get('bad').offline))

    def test_an_array_that_hangs_is_not_waited_for(self):
        _entered, go = self.bad.script.hold('start')
        self.backends.start(patience=0.1)
        self.assertEqual(('', True), (self.backends.get('good').offline, bool(self.backends.get('bad').offline)))
        go.set()
        support.wait_for(lambda: not self.backends.get('bad').offline)

    def test_a_name_that_is_not_there(self):
        error = self.assertRaises(exceptions.InvalidRequest, self.backends.get, 'none')
        self.assertIn('good, bad', str(error))
