"""A client for tap-rs that was written from docs/PROTOCOL.md alone; § is a section of it.

    client.py talk --server IP:PORT --server-key B64 --key FILE --suite 0x01 [--psk FILE]
                   --mac MAC --ip IP --station-ip IP [--tcp-port PORT]
    client.py vectors tests/vectors/worked-example.json

`talk` is the smallest client (§16), with a station of its own in place of a LAN: it shakes hands, pings, pulls the
blob, and then has ARP, ICMP and TCP with the server's kernel behind the projected NIC. `vectors` computes §18.
Exit status: 0 and a last line that begins with `ok`; 3 no COOKIE, 4 no RESP, 5 no answer in the session, 1 all else.
"""

import argparse
import base64
import hashlib
import json
import os
import select
import socket
import struct
import sys
import time

import station
import wire
from wire import CONTROL, CSUM, FIRST, NEXT, PATH, WHOLE, Handshake, control, record
from wire import APPLIED, BYE, CHUNK, GET, OFFER, PING, PONG, REFUSED, STATUS

NO_COOKIE, NO_RESP, NO_ANSWER = 3, 4, 5


class Silence(Exception):
    """Nothing that was waited for has come; the argument is the exit status."""


class Client:
    def __init__(self, server, make_handshake):
        self.server, self.make_handshake = server, make_handshake
        family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        # "Don't fragment", and ICMP is not believed (§13): IP_MTU_DISCOVER or its IPv6 twin, PMTUDISC_PROBE.
        level, option = (socket.IPPROTO_IPV6, 23) if family == socket.AF_INET6 else (socket.IPPROTO_IP, 10)
        self.socket.setsockopt(level, option, 3)
        self.socket.bind(("", 0))
        self.session, self.nic, self.frame_number = None, None, 0
        self.joiner = wire.Joiner()
        self.super_frames = self.partial = self.split = 0

    # Datagrams

    def exchange(self, send, receive, status, gaps, patience=5.0):
        """Sends, and sends again after each of `gaps`, until `receive` makes something of a datagram."""
        end, gaps, again = time.monotonic() + patience, list(gaps), 0.0
        while (now := time.monotonic()) < end:
            if now >= again:
                send()
                again = now + (gaps.pop(0) if len(gaps) > 1 else gaps[0])
            left = max(0.0, min(again, end) - time.monotonic())
            if select.select([self.socket], [], [], left)[0]:
                datagram, address = self.socket.recvfrom(wire.LARGEST + 1)
                if (result := receive(datagram, address)) is not None:
                    return result
        raise Silence(status)

    def send(self, datagram, address=None):
        self.socket.sendto(datagram, address or self.server)

    def handshake(self):
        """§6 and §14: a HELLO until a COOKIE comes, an INIT three times, and three times all that."""
        shake = self.make_handshake()

        def hello():
            self.send(shake.hello(int.from_bytes(os.urandom(4), "little"), os.urandom(16)))

        def cookie(datagram, _):
            return shake.read_cookie(datagram) or None

        def resp(datagram, _):
            return shake.read_resp(datagram)

        for attempt in (1, 2, 3):
            self.exchange(hello, cookie, NO_COOKIE, [0.25, 0.5, 1.0, 2.0], patience=3.75)
            init = shake.init()
            try:
                self.session = self.exchange(
                    lambda init=init: self.send(init), resp, NO_RESP, [0.25, 0.5, 1.0], patience=1.75
                )
                return
            except Silence:
                if attempt == 3:
                    raise

    # Records

    def say(self, *parts):
        self.send(self.session.seal(b"".join(parts)))

    def events(self, datagram, address):
        """The control messages and frames of a datagram; PINGs are answered on the way."""
        opened = self.session.open(datagram)
        if opened is None:
            return
        lane, plaintext = opened
        for kind, flags, at, nic, frame, gso, body in wire.records(plaintext):
            if kind == CONTROL:
                if body[:1] == bytes([PING]) and len(body) >= 9:
                    self.send(self.session.seal(control(PONG, body[1:9] + bytes(8))), address)
                yield CONTROL, body
            elif kind == WHOLE:
                yield from self.packets(nic, flags, gso, body)
            elif done := self.joiner.add(lane, kind, flags, at, nic, frame, gso, body):
                self.split += 1
                yield from self.packets(*done)

    def packets(self, nic, flags, gso, frame):
        """§10: what goes out onto the LAN."""
        if nic == self.nic:
            cut = station.finish(frame, flags & CSUM, gso)
            self.partial += bool(flags & CSUM)
            self.super_frames += len(cut) > 1
            yield from ((WHOLE, packet) for packet in cut)

    def ask(self, message, kind, length, start=b""):
        """Sends a control message until one of `kind` and `length` comes whose fields begin with `start`; returns
        its fields."""

        def receive(datagram, address):
            for event, body in list(self.events(datagram, address)):
                if event == CONTROL and len(body) == length and body.startswith(bytes([kind]) + start):
                    return body[1:]

        return self.exchange(lambda: self.say(message), receive, NO_ANSWER, [0.25, 0.5, 1.0])

    def ping(self):
        """Returns the revision that the server offers."""
        token = os.urandom(8)
        pong = self.ask(control(PING, token), PONG, 17, token)
        return struct.unpack("<Q", pong[8:])[0]

    def pull(self):
        """§12: the blob, and its revision."""
        offer = self.ask(control(GET, struct.pack("<QI", 0, 0)), OFFER, 45)
        revision, length, digest = struct.unpack("<QI32s", offer)
        assert 1 <= length <= 1 << 20, f"a blob of {length} bytes"
        assert revision == (int.from_bytes(digest[:8], "little") or 1), "revision and hash do not fit"
        blob = b"".join(self.chunk(revision, at, length) for at in range(0, length, 1024))
        assert hashlib.sha256(blob).digest() == digest, "the blob's hash is wrong"
        return blob, revision

    def chunk(self, revision, at, length):
        where = struct.pack("<QI", revision, at)
        chunk = self.ask(control(GET, where), CHUNK, 13 + min(1024, length - at), where)
        return chunk[12:]

    def report(self, revision, state):
        status = struct.pack("<QBB", revision, state, 0)
        self.ask(control(STATUS, status), STATUS, 11, status)

    def send_frame(self, frame):
        """One WHOLE record, or FIRST and NEXTs (§16, 5)."""
        room = PATH - 32 - 12
        if len(frame) <= room:
            return self.say(record(WHOLE, self.nic, frame))
        self.frame_number = self.frame_number + 1 & 0xFFFF
        for at in range(0, len(frame), room):
            kind, field = (NEXT, at) if at else (FIRST, len(frame))
            self.say(record(kind, self.nic, frame[at : at + room], field, self.frame_number))

    def talk(self, frames, receive):
        """Sends frames, now and again, until `receive` makes something of a frame."""

        def take(datagram, address):
            for event, frame in list(self.events(datagram, address)):
                if event == WHOLE and (result := receive(frame)) is not None:
                    return result

        return self.exchange(lambda: [self.send_frame(f) for f in frames()], take, NO_ANSWER, [0.5, 1.0])


def key(text):
    raw = base64.b64decode(text.strip(), validate=True)
    assert len(raw) == 32, "a key of another length than 32 bytes"
    return raw


def key_file(path):
    with open(path, encoding="ascii") as file:
        return key(file.read())


def talk(args):
    ip, port = args.server.rsplit(":", 1)
    private, server = key_file(args.key), key(args.server_key)
    psk = key_file(args.psk) if args.psk else None
    instance = int.from_bytes(os.urandom(8), "little")
    client = Client(
        (ip.strip("[]"), int(port)),
        lambda: Handshake(args.suite, private, server, psk, instance, os.urandom(32)),
    )
    client.handshake()
    offered = client.ping()
    blob, revision = client.pull()
    assert offered == revision, "PONG and OFFER name different revisions"
    mac_address = bytes.fromhex(args.mac.replace(":", ""))
    nics, script = wire.read_blob(blob)
    client.nic = nics[mac_address]
    client.report(revision, REFUSED if script else APPLIED)
    host = station.Station(client, mac_address, args.ip, args.station_ip)
    host.arp()
    host.echo(56)
    host.echo(1400)
    if args.tcp_port:
        host.tcp(args.tcp_port)
    client.say(control(BYE, bytes(1)))
    counts = f"split={client.split} partial={client.partial} super={client.super_frames}"
    print(f"ok suite={args.suite:#04x} blob={len(blob)} {counts}")


def vectors(args):
    with open(args.file, encoding="ascii") as file:
        example = json.load(file)
    common = {name: bytes.fromhex(value) for name, value in example["common"].items()}
    for suite in wire.SUITES:
        given = {name: bytes.fromhex(value) for name, value in example[f"suite {suite:#04x}"].items()}
        check_suite(suite, common, given)
    print("ok vectors")


def check_suite(suite, common, given):
    def check(name, mine):
        theirs = given.get(name) or common[name]
        assert mine == theirs, f"suite {suite:#04x}: {name} is {mine.hex()}, not {theirs.hex()}"

    instance = int.from_bytes(common["payload_1"][:8], "little")
    psk = common["psk"] if suite & 0x10 else None
    keys = common["client_private"], common["server_public"], psk
    shake = Handshake(suite, *keys, instance, common["client_ephemeral_private"])
    check("hello_key", shake.hello_key)
    check("cookie_key", shake.cookie_key)
    check("hello", shake.hello(0x01020304, bytes(range(0x40, 0x50))))
    assert shake.read_cookie(given["cookie_datagram"])
    check("cookie", shake.cookie)
    check("init", shake.init())
    wrong = bytearray(given["resp"])
    wrong[12] ^= 1
    wrong[76:] = wire.mac(shake.cookie, bytes(wrong[:76]))
    assert shake.read_resp(bytes(wrong)) is None
    session = shake.read_resp(given["resp"])
    check("key_client_to_server", session.keys[0])
    check("key_server_to_client", session.keys[1])
    check("plain_ping", control(PING, common["plain_ping"][13:]))
    check("data_ping", session.seal(common["plain_ping"]))
    check("plain_up", record(WHOLE, 0, common["frame_up"]))
    check("data_up", session.seal(common["plain_up"]))
    for name, lane, plain in ("data_pong", 0, "plain_pong"), ("data_down", 1, "plain_down"):
        assert session.open(given[name]) == (lane, common[plain])
        assert session.open(given[name]) is None, "a datagram opened twice"


def main():
    parser = argparse.ArgumentParser(description="An independent client for tap-rs.")
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("talk")
    for name in ("server", "server-key", "key", "mac", "ip", "station-ip"):
        one.add_argument(f"--{name}", required=True)
    one.add_argument("--suite", type=lambda text: int(text, 0), choices=wire.SUITES, required=True)
    one.add_argument("--psk")
    one.add_argument("--tcp-port", type=int)
    one.set_defaults(run=talk)
    two = commands.add_parser("vectors")
    two.add_argument("file")
    two.set_defaults(run=vectors)
    args = parser.parse_args()
    try:
        args.run(args)
    except Silence as silence:
        waited_for = {NO_COOKIE: "a COOKIE", NO_RESP: "a RESP", NO_ANSWER: "an answer in the session"}
        print(f"silence: waited for {waited_for[silence.args[0]]}", file=sys.stderr)
        sys.exit(silence.args[0])


if __name__ == "__main__":
    main()
