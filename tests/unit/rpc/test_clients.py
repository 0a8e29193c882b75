"""Clients and servers over the in-memory transport: values, errors by class, the form of requests, versions."""
import logging
import threading

import fixtures
import testtools
from oslo_config import cfg
from oslo_context import context as oslo_context
from oslo_log import formatters

from migrator import config, exceptions
from migrator.rpc import compute, conductor, contract, errors, facts, server, transport, volume, wire
from migrator.rpc import context as rpc_context
from tests.unit.rpc import support

#: Migration and epoch of a question.
SEEN = ('m', 1)


class ClientTestCase(testtools.TestCase):

    def setUp(self):
        super().setUp()
        self.log = self.useFixture(fixtures.FakeLogger())
        self.transport = support.make_transport()
        self.host = support.new_host()
        self.endpoint = support.SampleEndpoint()
        self.serve(contract.TOPIC_COMPUTE, self.endpoint)
        self.api = compute.ComputeAPI(support.make_conf(), self.transport)

    def serve(self, topic, endpoint):
        serving = server.make_server(self.transport, topic, self.host, [endpoint])
        serving.start()
        self.addCleanup(serving.wait)
        self.addCleanup(serving.stop)

    def call(self, name='locate_instance', version='1.0', **arguments):
        seen = {'migration_id': SEEN[0], 'epoch': SEEN[1]} if name == 'locate_instance' else {}
        return self.api._client.call(support.new_context(), name, version, server=self.host, **seen, **arguments)


class AnswersTest(ClientTestCase):

    def test_dataclasses_go_in_and_come_out(self):
        found = self.api.locate_instance(support.new_context(), self.host, 'abc', *SEEN)
        self.assertEqual(facts.Location(process_id='abc'), found)

    def test_the_context_travels_and_does_not_stay_behind(self):
        self.api.locate_instance(support.new_context(), self.host, 'abc', *SEEN)
        got = self.endpoint.contexts[0]
        self.assertEqual(('req-test', 'mig-test', 'tester'), (got.request_id, got.migration_id, got.user))

    def test_a_typed_error_arrives_as_its_own_class_with_its_own_words(self):
        error = self.assertRaises(exceptions.StaleEpoch, self.api.locate_instance, support.new_context(), self.host, 'stale', *SEEN)
        self.assertIs(exceptions.StaleEpoch, type(error))
        self.assertEqual('epoch 3 is outdated', str(error))
        self.assertNotIn('Traceback', self.log.output)

    def test_a_defect_arrives_as_an_internal_error_and_is_logged_where_it_is(self):
        error = self.assertRaises(exceptions.InternalError, self.api.locate_instance, support.new_context(), self.host, 'defect', *SEEN)
        self.assertIn('KeyError', str(error))
        self.assertIn('Traceback', self.log.output)

    def test_an_os_error_of_the_agent_is_not_taken_for_one_of_the_connection(self):
        self.assertRaises(exceptions.InternalError, self.api.locate_instance, support.new_context(), self.host, 'os-error', *SEEN)

    def test_an_answer_that_cannot_be_read_is_the_agents_fault(self):
        self.assertRaises(exceptions.AgentError, self.api.get_operation, support.new_context(), self.host, 'x')

    def test_a_request_that_nobody_answers_is_unknown(self):
        self.useFixture(fixtures.MonkeyPatch('migrator.rpc.contract.COMPUTE',
                                             {'locate_instance': contract.Method('locate_instance', contract.Kind.CALL, 0.1,
                                                                                 ('instance_uuid', 'migration_id', 'epoch'), '')}))
        api = compute.ComputeAPI(support.make_conf(), self.transport)
        self.assertRaises(errors.NoAnswer, api.locate_instance, support.new_context(), support.new_host(), 'x', *SEEN)


class FormTest(ClientTestCase):

    def refused(self, kind, method, /, **arguments):
        """Send past all checks of the client, as another program would, and see by which error it is refused."""
        answer = 'no error'
        prepared = self.api._client._client.prepare(server=self.host)
        try:
            prepared.transport._send(prepared.target, support.new_context().to_dict(),
                                     {'method': method, 'args': arguments, 'version': '1.0'}, wait_for_reply=True, timeout=5)
        except Exception as error:  # noqa: BLE001 - which one is what is asked
            answer = type(error).__name__
        self.assertEqual(kind, answer)

    def test_a_missing_or_unknown_argument_is_refused_before_it_is_sent(self):
        for arguments in ({}, {'instance_uuid': 'x', 'more': 1}, {'uuid': 'x'}):
            self.assertRaises(exceptions.InvalidRequest, self.call, **arguments)
        self.assertEqual([], self.endpoint.calls)

    def test_a_missing_or_unknown_argument_is_refused_by_the_server_too(self):
        self.refused('InvalidRequest', 'locate_instance')
        for name in ('more', 'self', 'context'):
            self.refused('InvalidRequest', 'locate_instance', instance_uuid='x', migration_id='m', epoch=1, **{name: 1})
        self.assertEqual([], self.endpoint.calls)

    def test_an_oversized_request_is_refused_at_both_ends(self):
        large = 'x' * contract.MAX_PAYLOAD
        self.assertRaises(exceptions.PayloadTooLarge, self.call, instance_uuid=large)
        self.refused('PayloadTooLarge', 'locate_instance', instance_uuid=large, migration_id='m', epoch=1)
        self.assertEqual([], self.endpoint.calls)

    def test_the_largest_request_passes(self):
        fits = 'x' * (contract.MAX_PAYLOAD - len('{"migration_id": "m", "epoch": 1, "instance_uuid": ""}'))
        self.call(instance_uuid=fits)
        self.assertEqual(1, len(self.endpoint.calls))
        self.assertRaises(exceptions.PayloadTooLarge, self.call, instance_uuid=fits + 'x')

    def test_what_is_no_json_is_refused(self):
        self.assertRaises(exceptions.InvalidRequest, self.call, instance_uuid=object())
        self.assertRaises(exceptions.InvalidRequest, wire.size, {'x': {1, 2}})

    def test_a_method_that_does_not_exist_or_is_not_exposed_is_refused_by_name(self):
        for name in ('not_exposed', 'nothing', '__init__'):
            self.refused('NoSuchMethod', name)
        self.assertRaises(errors.NoSuchMethod, self.call, 'abort_live_migration', migration_id='a', instance_uuid='b')
        self.assertEqual([], self.endpoint.calls)
        self.assertIn('request refused', self.log.output)
        self.assertNotIn('Traceback', self.log.output)

    def test_a_version_that_does_not_exist_is_refused_by_name(self):
        error = self.assertRaises(errors.UnsupportedVersion, self.call, version='2.0', instance_uuid='x')
        self.assertIn('2.0', str(error))
        self.assertRaises(errors.UnsupportedVersion, self.call, version='1.9', instance_uuid='x')

    def test_the_version_cap_forbids_to_send_what_old_agents_do_not_know(self):
        api = compute.ComputeAPI(support.make_conf(upgrade_levels__compute='0.9'), self.transport)
        self.assertRaises(errors.UnsupportedVersion, api.locate_instance, support.new_context(), self.host, 'x', *SEEN)
        self.assertEqual([], self.endpoint.calls)


class CompleteTest(testtools.TestCase):

    def test_every_client_has_a_method_for_every_entry_of_its_table_and_no_other(self):
        for cls, table in ((compute.ComputeAPI, contract.COMPUTE), (volume.VolumeAPI, contract.VOLUME),
                           (conductor.ConductorAPI, contract.CONDUCTOR), (conductor.AgentToConductorAPI, contract.AGENT)):
            public = {name for name in vars(cls) if not name.startswith('_')} - {'from_url', 'close'}
            self.assertEqual(set(table), public)


class ConductorAPITest(testtools.TestCase):

    def setUp(self):
        super().setUp()
        self.api = conductor.ConductorAPI.from_url('fake://', user='me')
        self.calls = []

    def answer_with(self, result):
        def call(context, name, **arguments):
            wire.check_arguments(contract.CONDUCTOR[name], arguments)
            self.calls.append((name, arguments))
            if isinstance(result, Exception):
                raise result
            return result
        self.api._client.call = call

    def test_every_method_sends_what_the_contract_names(self):
        self.answer_with({})
        self.api.live_migrate('web', 'b')
        self.api.show('m')
        self.api.list({'host': 'a'})
        self.api.abort('m')
        self.api.force_complete('m')
        self.api.recover('m', 'a')
        self.api.audit('a')
        self.api.debts()
        self.api.debt_write_off('d', 'why')
        self.api.hosts()
        self.api.host_show('a')
        self.api.host_disable('a', 'why')
        self.api.host_enable('a')
        self.api.instances()
        self.api.instance_show('web')
        self.api.instance_create('a', {})
        self.api.instance_start('web')
        self.api.instance_stop('web')
        self.api.instance_delete('web')
        self.api.instance_forget('web')
        self.api.backends()
        self.api.backend_show('a@gold')
        self.api.volumes()
        self.api.volume_show('data')
        self.api.volume_create('data', 512)
        self.api.volume_delete('data')
        self.api.volume_extend('data', 1024)
        self.api.volume_attach('data', 'web')
        self.api.volume_detach('data', 'web')
        self.api.volume_migrate('data', 'b@gold')
        self.api.set_bandwidth('m', 1 << 20)
        self.assertEqual(set(contract.CONDUCTOR), {name for name, _ in self.calls})

    def test_a_change_has_a_request_id_of_its_own_or_the_callers(self):
        self.answer_with({})
        self.api.live_migrate('web', 'b')
        self.api.live_migrate('web', 'b')
        self.api.live_migrate('web', 'b', request_id='mine')
        first, second, third = (arguments['request_id'] for _, arguments in self.calls)
        self.assertEqual((36, 'mine'), (len(first), third))
        self.assertNotEqual(first, second)

    def test_nobody_there_is_unavailable_in_words(self):
        self.answer_with(errors.NotDelivered('the message broker cannot be reached'))
        self.assertIn('no conductor', str(self.assertRaises(exceptions.Unavailable, self.api.hosts)))

    def test_a_lost_answer_names_the_request_id_to_repeat_it_with(self):
        self.answer_with(errors.NoAnswer('nothing came'))
        error = self.assertRaises(exceptions.Unavailable, self.api.live_migrate, 'web', 'b', 'my-request')
        self.assertIn('my-request', str(error))

    def test_a_url_that_cannot_be_used_is_refused_in_words(self):
        self.assertRaises(exceptions.InvalidRequest, conductor.ConductorAPI.from_url, 'nonsense://x')


class ContextTest(testtools.TestCase):

    def setUp(self):
        super().setUp()
        self.addCleanup(rpc_context.clear)

    def test_what_a_peer_sends_is_cut_and_cleaned(self):
        got = rpc_context.MigratorContext.from_dict({'request_id': 'a\nERROR forged', 'migration_id': 'x' * 999, 'user': 5})
        self.assertEqual(('aERROR forged', 128, ''), (got.request_id, len(got.migration_id), got.user))
        self.assertTrue(rpc_context.MigratorContext.from_dict('nonsense').request_id.startswith('req-'))

    def test_log_lines_have_both_ids_and_need_neither(self):
        self.useFixture(fixtures.MonkeyPatch('oslo_log.log.setup', lambda *a: None))
        formatter = formatters.ContextFormatter(config=config.setup([], 'test', cfg.ConfigOpts(), default_config_files=[]))

        def line():
            return formatter.format(logging.LogRecord('n', logging.INFO, 'p', 1, 'words', (), None))
        self.assertIn('words', line())
        with rpc_context.using(rpc_context.MigratorContext(request_id='req-7', migration_id='mig-8', overwrite=False)):
            self.assertIn('[req req-7 mig mig-8] words', line())
        with rpc_context.using(rpc_context.MigratorContext(request_id='req-9', overwrite=False)):
            self.assertIn('[req req-9 mig -] words', line())

    def test_a_bound_function_runs_under_the_context_of_its_binding_in_any_thread(self):
        seen = []
        with rpc_context.using(rpc_context.MigratorContext(migration_id='mig-1', overwrite=False)):
            bound = rpc_context.bind(lambda: seen.append(oslo_context.get_current().migration_id))
        thread = threading.Thread(target=lambda: (bound(), seen.append(oslo_context.get_current())))
        thread.start()
        thread.join(support.DEADLINE)
        self.assertEqual(['mig-1', None], seen)


class BrokerTest(testtools.TestCase):

    def test_a_broker_that_is_not_there_is_told_in_time_and_nothing_is_sent_later(self):
        self.useFixture(fixtures.FakeLogger())
        self.useFixture(fixtures.MonkeyPatch('migrator.rpc.transport.CONNECT_SECONDS', 0.2))
        way = transport.get_transport(support.make_conf(), 'rabbit://a:b@127.0.0.1:1//')
        error = self.assertRaises(errors.NotDelivered, way.connect, 0.2)
        self.assertEqual('the message broker at 127.0.0.1:1 cannot be reached (tried for 0.2 s)', str(error))

    def test_where_the_broker_is_said_to_be(self):
        """By host and port, never with a password; if no URL is set, the file where it belongs is named."""
        unset = ' at localhost (no transport_url is set in [DEFAULT] of /etc/migrator/migrator.conf)'
        for url, words in (('rabbit://', unset), ('rabbit:///', unset), ('rabbit://a:secret@one,b:hidden@two:5673/', ' at one, two:5673')):
            self.assertEqual(words, transport.get_transport(support.make_conf(), url).broker)
        conf = support.make_conf()
        conf.set_default('config_file', ['/some/where.conf'])
        self.assertIn('[DEFAULT] of /some/where.conf', transport.get_transport(conf, 'rabbit://').broker)
