"""A DICOMweb server with one illness at a time, read from a file: ``ill_stow.py PORT FOLDER [CERTIFICATE KEY]``."""

from __future__ import annotations

import hashlib
import json
import os
import ssl
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

from pydicom import dcmread

FOLDER = Path(sys.argv[2])


def instances(body: bytes, boundary: str) -> list[bytes]:
    parts = body.split(f"--{boundary}".encode())
    assert parts[0] == b""
    assert parts[-1] == b"--\r\n"
    for part in parts[1:-1]:
        assert part.startswith(b"\r\nContent-Type: application/dicom\r\n\r\n")
    return [part.partition(b"\r\n\r\n")[2][:-2] for part in parts[1:-1]]


def answer_of(stored: list[str], failed: dict[str, int]) -> bytes:
    tree = {
        "00081199": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": [uid]}} for uid in stored]},
        "00081198": {
            "vr": "SQ",
            "Value": [
                {"00081155": {"vr": "UI", "Value": [uid]}, "00081197": {"vr": "US", "Value": [reason]}}
                for uid, reason in failed.items()
            ],
        },
    }
    return json.dumps({tag: value for tag, value in tree.items() if value["Value"]}).encode()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Be quiet."""

    def do_POST(self) -> None:
        words = (FOLDER / "illness").read_text().split()
        length = int(self.headers["Content-Length"])
        with (FOLDER / "requests").open("a") as file:
            file.write(f"{self.path} {length} {self.headers.get('Authorization')}\n")
        if "drop_early" in words:
            self.rfile.read(10)
            self.connection.shutdown(2)
            return
        largest = next((int(word[4:]) for word in words if word.startswith("413>")), None)
        body = self.rfile.read(length)
        if "hang" in words:
            time.sleep(600)
        if "drop" in words:
            self.connection.shutdown(2)
            return
        status = next((int(word) for word in words if word.isdigit()), 200)
        if largest is not None and length > largest:
            status = 413
        boundary = self.headers["Content-Type"].partition("boundary=")[2]
        stored, failed = [], {}
        for data in instances(body, boundary) if status == 200 else ():
            ds = dcmread(BytesIO(data))
            kind = {"SR": "sr", "SEG": "seg"}.get(ds.Modality, "capture")
            reason = next((word.partition("=")[2] for word in words if word.startswith(f"fail_{kind}=")), None)
            if reason is not None:
                failed[str(ds.SOPInstanceUID)] = int(reason, 16)
                continue
            stored.append(str(ds.SOPInstanceUID))
            with (FOLDER / "arrived").open("a") as file:
                file.write(f"{ds.SOPInstanceUID} {hashlib.sha256(data).hexdigest()}\n")
                os.fsync(file.fileno())
        if "drop_after" in words:
            self.connection.shutdown(2)
            return
        text = answer_of(stored, failed) if status == 200 else b"<html>no</html>"
        if failed:
            status = 202 if stored else 409
        if "portal" in words:
            text = b"<html>Log in</html>"
        self.send_response(status)
        for word in words:
            if "=" in word and word[0].isupper():
                self.send_header(*word.split("=", 1))
        self.send_header("Content-Type", "application/dicom+json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
if len(sys.argv) > 3:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[3], sys.argv[4])
    if len(sys.argv) > 5:
        context.load_verify_locations(sys.argv[5])
        context.verify_mode = ssl.CERT_REQUIRED
    server.socket = context.wrap_socket(server.socket, server_side=True)
(FOLDER / "ready").touch()
server.serve_forever()
