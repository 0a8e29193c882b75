"""Guests that stand still because a volume does not answer, in a whole simulated cloud: they go on by themselves, and users are told."""
import uuid

from tests import base
from tests.simulated import Cloud, wait_for

URI = 'nbd://array:10809/lun'


class StalledGuestsTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.cloud = self.useFixture(Cloud(compute__stall_interval=0.1))
        self.guest = str(uuid.uuid4())
        spec = {'uuid': self.guest, 'name': 'web', 'memory_mib': 64, 'disks': [{'target': 'vda', 'uri': URI, 'serial': 'volume'}]}
        self.cloud.wait(self.cloud.api.instance_create('alpha', spec, start=True), 'completed')

    def shown(self):
        """What users see of the guest."""
        said = self.cloud.api.instance_show(self.guest)
        return said['state'], said['note']

    def test_a_guest_goes_on_once_its_volume_answers_and_its_note_says_so(self):
        wait_for(lambda: self.shown() == ('running', ''), 'a running guest')
        self.cloud.world.set_export(URI, answers=False)
        wait_for(lambda: self.shown()[0] == 'paused' and f'the export {URI} does not answer' in self.shown()[1], 'its reason')
        self.cloud.world.set_export(URI, answers=True)
        wait_for(lambda: self.shown()[0] == 'running' and 'stood still from' in self.shown()[1], 'its end')
        self.assertEqual([], self.cloud.world.check())
