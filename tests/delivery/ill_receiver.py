"""An HL7 receiver over MLLP with one illness at a time, read from a file: ``ill_receiver.py PORT FOLDER [PEM …]``."""

from __future__ import annotations

import os
import socketserver
import ssl
import sys
import time
from pathlib import Path

FOLDER = Path(sys.argv[2])


def acknowledgement(code: str, control_id: str, error: str = "") -> bytes:
    segments = ["MSH|^~\\&|HIS|HOSP|APPLIANCE|box|20261130||ACK^R01^ACK|9|P|2.5.1", f"MSA|{code}|{control_id}"]
    if error:
        segments.append(f"ERR|||{error}^what^HL70357|E||||Zhang\\S\\San \x07unknown")
    return b"\x0b" + ("\r".join(segments) + "\r").encode() + b"\x1c\r"


class Handler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        heard = b""
        while not heard.endswith(b"\x1c\r"):
            piece = self.request.recv(1 << 16)
            if not piece:
                return
            heard += piece
        assert heard.startswith(b"\x0b")
        words = (FOLDER / "illness").read_text().split()
        text = heard[1:-2]
        control_id = text.split(b"\r")[0].split(b"|")[9].decode("ascii")
        number = len(list(FOLDER.glob("*.hl7")))
        if "drop" in words:
            return
        part = FOLDER / f"{number:06}.part"
        part.write_bytes(text)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.rename(FOLDER / f"{number:06}.hl7")
        if "hang" in words:
            time.sleep(600)
        if "slow" in words:
            time.sleep(1.0)
        if "garbage" in words:
            self.request.sendall(b"\x0bHTTP/1.1 400\x1c\r")
            time.sleep(600)
        right = acknowledgement("AA", control_id)
        if "half" in words:
            self.request.sendall(right[:-9])
            time.sleep(600)
        if "wrong" in words:
            self.request.sendall(acknowledgement("AA", "ANOTHER"))
            if "right" not in words:
                time.sleep(600)
        for word in words:
            code, _, error = word.partition("=")
            if len(code) == 2 and code.isupper():
                right = acknowledgement(code, control_id, error)
        for place in range(len(right)):  # byte by byte, as a bad network may
            self.request.sendall(right[place : place + 1])


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


server = Server(("127.0.0.1", int(sys.argv[1])), Handler)
if len(sys.argv) > 3:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[3], sys.argv[4])
    context.load_verify_locations(sys.argv[5])
    context.verify_mode = ssl.CERT_REQUIRED
    server.socket = context.wrap_socket(server.socket, server_side=True)
(FOLDER / "ready").touch()
server.serve_forever()
