"""The identity endpoint that Azure gives to a container, and certificates: what a process without any secret lives on."""

import base64
import datetime
import http.server
import ipaddress
import json
import threading
import time
import urllib.parse

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOST = "127.0.0.1"
HEADER = "only-for-this-container"
DAY = datetime.timedelta(days=1)


def _part(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


class IdentityEndpoint:
    """Answers tokens that hold for `seconds`. `asked` are the resources of all answers, in order."""

    def __init__(self, seconds):
        self.asked = asked = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
                if self.headers.get("X-IDENTITY-HEADER") != HEADER:
                    return self.send_error(403)
                asked.append(query["resource"][0])
                end = int(time.time()) + seconds
                token = f"{_part({'alg': 'none'})}.{_part({'exp': end, 'aud': asked[-1]})}."
                answer = {"access_token": token, "expires_on": str(end), "resource": asked[-1], "token_type": "Bearer"}
                body = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer((HOST, 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def environment(self):
        return {"IDENTITY_ENDPOINT": f"http://{HOST}:{self.server.server_port}/msi/token", "IDENTITY_HEADER": HEADER}

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def certificates(folder):
    """(authority, certificate, key): PEM files of a certificate for this machine and of who signed it."""
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = _certificate("tests of geoworker", authority_key.public_key(), "tests of geoworker", authority_key, is_authority=True)
    leaf = _certificate("the broker", key.public_key(), "tests of geoworker", authority_key, is_authority=False)
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    files = [folder / name for name in ("authority.pem", "broker.pem", "broker.key")]
    contents = [authority.public_bytes(serialization.Encoding.PEM), leaf.public_bytes(serialization.Encoding.PEM), private]
    for file, content in zip(files, contents):
        file.write_bytes(content)
    return files


def _certificate(name, key, issuer, issuer_key, is_authority):
    def named(text):
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    now = datetime.datetime.now(datetime.timezone.utc)
    builder = (
        x509.CertificateBuilder().subject_name(named(name)).issuer_name(named(issuer)).public_key(key)
        .serial_number(x509.random_serial_number()).not_valid_before(now - DAY).not_valid_after(now + DAY)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
    )
    if not is_authority:
        address = x509.IPAddress(ipaddress.ip_address(HOST))
        builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())
