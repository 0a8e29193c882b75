"""Whether an NBD export answers: what a server may say, and what it means."""
import contextlib
import socket
import struct
import threading

import testtools

from migrator import concurrency
from migrator.compute.drivers.libvirt import exports

GREETING = b'NBDMAGICIHAVEOPT' + struct.pack('>H', 3)
ACK, INFORMATION, UNSUPPORTED, TLS_NEEDED, UNKNOWN = 1, 3, (1 << 31) + 1, (1 << 31) + 5, (1 << 31) + 6
INFO, STARTTLS = 6, 5


def reply(kind, option=INFO, data=b''):
    """A server's reply to an option."""
    return struct.pack('>QIII', 0x3e889045565a9, option, kind, len(data)) + data


class ExportsTest(testtools.TestCase):

    def asked(self, *said, uri='nbd://127.0.0.1:{}/lun', patience=5, hang=False):
        """Ask a server that says these; gives the answer, and keeps what the server heard."""
        self.heard = b''
        listening = socket.create_server(('127.0.0.1', 0))
        self.addCleanup(listening.close)

        def serve():
            with contextlib.suppress(OSError), listening.accept()[0] as link:
                link.settimeout(10)
                link.sendall(b''.join(said))
                while not hang and len(self.heard) < 4096 and (data := link.recv(4096)):
                    self.heard += data
                if hang:
                    stay.wait(10)
        stay = threading.Event()
        server = threading.Thread(target=serve)
        server.start()
        try:
            return concurrency.run_native(exports.problem, uri.format(listening.getsockname()[1]), patience)
        finally:
            stay.set()
            server.join(20)

    def test_a_server_that_has_the_export(self):
        self.assertEqual('', self.asked(GREETING, reply(INFORMATION, data=bytes(12)), reply(ACK)))
        name = struct.pack('>I', 3) + b'lun' + bytes(2)
        self.assertEqual(struct.pack('>I', 1) + b'IHAVEOPT' + struct.pack('>II', INFO, len(name)) + name
                         + b'IHAVEOPT' + struct.pack('>II', 2, 0), self.heard)

    def test_a_server_that_knows_no_such_question_answers_all_the_same(self):
        self.assertEqual('', self.asked(GREETING, reply(UNSUPPORTED)))

    def test_a_server_without_the_export(self):
        self.assertIn('no such export', self.asked(GREETING, reply(UNKNOWN, data=b'lun?')))

    def test_with_tls_it_is_enough_that_the_server_would_begin(self):
        self.assertEqual('', self.asked(GREETING, reply(ACK, STARTTLS), uri='nbds://127.0.0.1:{}/lun'))
        self.assertEqual(struct.pack('>I', 1) + b'IHAVEOPT' + struct.pack('>II', STARTTLS, 0), self.heard)
        self.assertIn('wants TLS', self.asked(GREETING, reply(TLS_NEEDED)))

    def test_what_is_no_answer(self):
        """Another protocol, an old one, half a message, a broken or endless one: words, and no error."""
        for said in ((b'SSH-2.0-OpenSSH_9.2\r\n',), (b'NBDMAGICIHAVEOPT' + bytes(2),), (GREETING[:9],), (GREETING, reply(ACK, option=7)),
                     (GREETING, reply(INFORMATION) * 200), (GREETING, reply(ACK)[:7])):
            with self.subTest(said=said[0][:30]):
                self.assertIn('does not answer', self.asked(*said, patience=0.5) or 'nothing wrong')

    def test_a_server_that_hangs_is_given_up(self):
        self.assertIn('does not answer', self.asked(GREETING, patience=0.5, hang=True))

    def test_nobody_there(self):
        with socket.create_server(('127.0.0.1', 0)) as listening:
            port = listening.getsockname()[1]
        self.assertIn('Connection refused', exports.problem(f'nbd://127.0.0.1:{port}/lun', 5))

    def test_of_an_export_by_a_local_socket_nothing_is_known(self):
        self.assertEqual('', exports.problem('nbd:///run/nbd.sock/lun', 5))
