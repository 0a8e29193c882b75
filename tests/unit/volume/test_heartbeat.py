"""The volume agent's sign of life: its backends, online or not, and how its jobs get on."""
import time

from migrator import exceptions
from migrator.rpc import contract, facts
from migrator.rpc import volume_facts as vf
from migrator.rpc.journal import KEEP_SECONDS
from migrator.volume.backends import Backend, Backends
from migrator.volume.heartbeat import HeartbeatLoop
from tests.unit.rpc import support
from tests.unit.volume import samples
from tests.unit.volume.scripted import ManagerTestCase, ScriptedArray


class HeartbeatTest(ManagerTestCase):

    def setUp(self):
        super().setUp()
        self.now = 50.0
        self.loop = self.make_loop(self.backends)
        self.heard = []
        self.conductor.volume_heartbeat = lambda context, beat: self.heard.append(facts.from_wire(vf.VolumeHeartbeat, facts.to_wire(beat)))

    def make_loop(self, backends):
        return HeartbeatLoop(backends, self.manager, self.operations, self.conductor, self.host, 'process-1', 'boot-1',
                             0.05, 1.0, clock=lambda: self.now)

    def beat(self):
        self.assertTrue(self.loop.beat())
        return self.heard[-1]

    def test_it_tells_who_and_what(self):
        beat = self.beat()
        self.assertEqual((self.host, 'process-1', 'boot-1', 1, 50.0, contract.VOLUME_VERSION, False),
                         (beat.host, beat.process_id, beat.host_boot_id, beat.sequence, beat.monotonic, beat.rpc_version, beat.draining))
        self.assertEqual([('old', '', ('plain',), ('fast', 'slow')), ('new', '', (), ('fast', 'slow'))],
                         [(b.name, b.offline, b.types, tuple(p.name for p in b.pools)) for b in beat.backends])
        self.operations.drain()
        self.assertEqual((2, True), (self.beat().sequence, self.heard[-1].draining))

    def test_an_array_that_cannot_be_asked_is_offline_in_words_until_it_answers(self):
        self.old.script.results['pools'] = exceptions.DriverError('the storage daemon is gone')
        self.assertEqual(['the storage daemon is gone', ''], [b.offline for b in self.beat().backends])
        del self.old.script.results['pools']
        self.assertEqual(['', ''], [b.offline for b in self.beat().backends])

    def test_an_array_that_hangs_holds_up_neither_the_heartbeat_nor_the_others_and_is_asked_once(self):
        entered, go = self.old.script.hold('pools')
        began = time.monotonic()
        offline = [b.offline for b in self.beat().backends]
        self.assertEqual(['the array old does not answer', ''], offline)
        self.assertLess(time.monotonic() - began, support.DEADLINE / 2)
        self.beat()
        self.assertEqual(1, self.old.script.did().count('pools'))
        go.set()
        support.wait_for(lambda: not self.beat().backends[0].offline)

    def test_a_mirror_whose_array_hangs_holds_up_neither_the_heartbeat_nor_others(self):
        """Given take-overs of which an array does not say how far they are, then the heartbeat comes in time, with what was known last."""
        self.outcome('migrate_volume_target')
        self.beat()
        entered, go = self.new.script.hold('progress')
        self.now += 1.0
        began = time.monotonic()
        for _ in range(3):
            self.assertEqual(40, self.beat().progress[samples.MIGRATION]['done'])
        self.assertLess(time.monotonic() - began, support.DEADLINE / 2)
        self.assertEqual((True, 2), (entered.is_set(), self.new.script.did().count('progress')))
        self.new.script.results['progress'] = vf.Progress(True, 100, 90)
        go.set()
        support.wait_for(lambda: self.beat().progress[samples.MIGRATION]['done'] == 90)

    def test_what_is_kept_of_copies_goes_when_their_migrations_have_ended(self):
        """Given checkpoints of three copies, when the conductor says that two migrations have ended, and one that was not asked about,
        then these two are forgotten; what cannot be is told of again."""
        ended, stuck, live, other = (f'{n}0000000-0000-4000-8000-000000000000' for n in range(4))
        self.copying.script.results['kept'] = [ended, stuck, live]
        answers = {'ended': [ended, stuck, other]}
        heard = self.conductor.volume_heartbeat
        self.conductor.volume_heartbeat = lambda context, beat: heard(context, beat) or answers
        refused = exceptions.PreconditionFailed('it is being copied')
        forget = self.copying.forget
        self.copying.forget = lambda known: forget(known) if known != stuck else self.refuse(refused)
        self.assertEqual((ended, stuck, live), self.beat().copies)
        self.assertEqual([('forget', ended)], [call for call in self.copying.script.calls if call[0] == 'forget'])
        self.assertIn('it is being copied', self.log.output)

    def test_what_no_conductor_knows_is_kept_for_a_while(self):
        """Given the checkpoint of a copy whose migration no conductor knows, then it is kept while it is young, and goes when it is old."""
        known, heard = '10000000-0000-4000-8000-000000000000', self.conductor.volume_heartbeat
        self.copying.script.results['kept'] = [known]
        self.conductor.volume_heartbeat = lambda context, beat: heard(context, beat) or {'ended': [], 'unknown': [known]}
        for age, goes in ((KEEP_SECONDS - 60, False), (KEEP_SECONDS + 60, True)):
            self.copying.script.results['age'] = age
            self.beat()
            self.assertEqual(goes, 'forget' in self.copying.script.did())

    @staticmethod
    def refuse(error):
        """Raise it."""
        raise error

    def test_a_backend_that_has_not_started_says_why(self):
        array = ScriptedArray()
        array.script.results['start'] = exceptions.DriverError('no such socket')
        backends = Backends([Backend('late', array)])
        backends.all()[0].start()
        self.loop = self.make_loop(backends)
        self.assertEqual('no such socket', self.beat().backends[0].offline)
        self.assertNotIn('pools', array.script.did())

    def test_progress_of_mirrors_and_copies_each_asked_for_once_an_interval(self):
        self.outcome('migrate_volume_target')
        self.assertEqual(40, self.beat().progress[samples.MIGRATION]['done'])
        self.new.script.results['progress'] = vf.Progress(True, 100, 90)
        self.assertEqual(40, self.beat().progress[samples.MIGRATION]['done'])
        self.now += 1.0
        self.assertEqual(90, self.beat().progress[samples.MIGRATION]['done'])
        self.outcome('complete_migration_target')
        self.assertEqual({}, self.beat().progress)

    def test_no_conductor_is_no_reason_to_die(self):
        for error in (exceptions.Unavailable('no database'), exceptions.InvalidRequest('odd')):
            def refuse(context, beat, error=error):
                raise error
            self.conductor.volume_heartbeat = refuse
            self.assertFalse(self.loop.beat())
