"""Certificates for tests that speak TLS."""
import subprocess

_NEW = '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'


def make_keys(folder):
    """Make an authority in a new folder, and of it a server's and a client's certificate, both for 127.0.0.1; returns the folder."""
    folder.mkdir()

    def openssl(*words):
        subprocess.run(['openssl', 'req', *_NEW, *words], cwd=folder, check=True, capture_output=True, timeout=30)
    openssl('-subj', '/CN=authority', '-keyout', 'ca-key.pem', '-out', 'ca-cert.pem')
    for name in ('server', 'client'):
        openssl('-CA', 'ca-cert.pem', '-CAkey', 'ca-key.pem', '-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1',
                '-addext', 'basicConstraints=critical,CA:FALSE', '-keyout', f'{name}-key.pem', '-out', f'{name}-cert.pem')
    return folder
