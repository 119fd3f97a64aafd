"""tap-rs's protocol, from docs/PROTOCOL.md alone: handshake, sealing, records, the blob; no sockets. § is a section."""

import hashlib
import hmac
import struct
import time
import warnings

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from noise.connection import Keypair, NoiseConnection

# The library warns where an ephemeral key is set; see Handshake.noise.
warnings.filterwarnings("ignore", module="noise")

SUITES = {
    0x01: (b"Noise_IK_25519_ChaChaPoly_BLAKE2s", ChaCha20Poly1305, "little"),
    0x02: (b"Noise_IK_25519_AESGCM_BLAKE2s", AESGCM, "big"),
    0x11: (b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s", ChaCha20Poly1305, "little"),
    0x12: (b"Noise_IKpsk2_25519_AESGCM_BLAKE2s", AESGCM, "big"),
}
HELLO, COOKIE, INIT, RESP, DATA = 1, 2, 3, 4, 5
PADDING, WHOLE, FIRST, NEXT, CONTROL = 0, 1, 2, 3, 4
CSUM, GSO_TCP, GSO_UDP = 0x10, 0x20, 0x40
PING, PONG, OFFER, GET, CHUNK, STATUS, BYE = 1, 2, 3, 4, 5, 6, 8
APPLIED, REFUSED = 1, 2
LANES, WINDOW, PATH, LARGEST = 16, 8192, 1232, 8972


def blake2s(data):
    return hashlib.blake2s(data).digest()


def mac(key, data):
    return hashlib.blake2s(data, key=key, digest_size=16).digest()


def same(a, b):
    return hmac.compare_digest(a, b)


def head(kind, suite):
    return bytes([kind, 1, suite, 0])


class Handshake:
    """§5 and §6. The randomness comes in from outside, so that §18 can be computed."""

    def __init__(self, suite, private, server_public, psk, instance, ephemeral):
        self.suite, self.private, self.server, self.psk = suite, private, server_public, psk
        self.payload = struct.pack("<QQ", instance, 0)
        self.ephemeral = ephemeral
        self.hello_key = blake2s(b"tap-rs v1 hello" + server_public)
        self.cookie_key = blake2s(b"tap-rs v1 cookie" + server_public)

    def hello(self, index, nonce):
        self.index = index
        start = head(HELLO, self.suite) + struct.pack("<I", index) + nonce + bytes(12)
        self.sent_hello = start + mac(self.hello_key, start)
        return self.sent_hello

    def read_cookie(self, datagram):
        """True if this is the COOKIE for the HELLO that was made last."""
        expected = head(COOKIE, self.suite) + struct.pack("<I", self.index)
        if len(datagram) != 52 or datagram[:8] != expected:
            return False
        try:
            aead = ChaCha20Poly1305(self.cookie_key)
            self.cookie = aead.decrypt(datagram[8:20], datagram[20:], self.sent_hello)
        except InvalidTag:
            return False
        return True

    def noise(self):
        """The Noise state after message 1, and that message. The library's state is of no use after a failed read, so
        it is made anew for every RESP, from the same ephemeral key: the same bytes come of it."""
        noise = NoiseConnection.from_name(SUITES[self.suite][0])
        noise.set_as_initiator()
        noise.set_prologue(b"tap-rs v1 " + self.init_head + self.cookie)
        noise.set_keypair_from_private_bytes(Keypair.STATIC, self.private)
        noise.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, self.server)
        noise.set_keypair_from_private_bytes(Keypair.EPHEMERAL, self.ephemeral)
        if self.psk:
            noise.set_psks(psk=self.psk)
        noise.start_handshake()
        return noise, bytes(noise.write_message(self.payload))

    def init(self):
        self.init_head = head(INIT, self.suite) + struct.pack("<I", self.index)
        start = self.init_head + self.noise()[1]
        return start + mac(self.cookie, start)

    def read_resp(self, datagram):
        """The session that a RESP makes, or None; the handshake goes on unharmed."""
        if len(datagram) != 92 or datagram[:4] != head(RESP, self.suite):
            return None
        theirs, mine = struct.unpack("<II", datagram[4:12])
        if mine != self.index or not same(datagram[76:], mac(self.cookie, datagram[:76])):
            return None
        noise = self.noise()[0]
        try:
            payload = noise.read_message(datagram[12:76])
        except (InvalidTag, ValueError):  # a wrong tag; an all-zero Diffie-Hellman result
            return None
        if struct.unpack("<I", payload[8:12])[0] != theirs:
            return None
        state = noise.noise_protocol
        up, down = state.cipher_state_encrypt.k, state.cipher_state_decrypt.k
        return Session(self.suite, up, down, mine, theirs)


class Session:
    """§7. Seals on one lane; opens on all, each with its window."""

    def __init__(self, suite, up, down, mine, theirs):
        self.head, self.mine, self.theirs = head(DATA, suite), mine, theirs
        self.keys = up, down
        _, aead, self.order = SUITES[suite]
        self.up, self.down = aead(up), aead(down)
        self.sent = 0
        self.seen = [set() for _ in range(LANES)]
        self.highest = [-1] * LANES

    def nonce(self, counter):
        return bytes(4) + counter.to_bytes(8, self.order)

    def seal(self, plaintext):
        counter, self.sent = self.sent, self.sent + 1
        start = self.head + struct.pack("<IQ", self.theirs, counter)
        return start + self.up.encrypt(self.nonce(counter), plaintext, None)

    def open(self, datagram):
        """The lane and the plaintext, or None."""
        if len(datagram) < 32 or datagram[:4] != self.head:
            return None
        index, counter = struct.unpack("<IQ", datagram[4:16])
        lane, number = counter >> 56, counter & (1 << 56) - 1
        if index != self.mine or lane >= LANES:
            return None
        if number in self.seen[lane] or number <= self.highest[lane] - WINDOW:
            return None
        try:
            plaintext = self.down.decrypt(self.nonce(counter), datagram[16:], None)
        except InvalidTag:
            return None
        self.highest[lane] = max(self.highest[lane], number)
        self.seen[lane] = {n for n in self.seen[lane] | {number} if n > self.highest[lane] - WINDOW}
        return lane, plaintext


def record(kind, nic, body, at=0, frame=0):
    """§9, without offloads."""
    return bytes([kind]) + at.to_bytes(3, "little") + struct.pack("<HHHH", nic, len(body), frame, 0) + body


def control(kind, body):
    return record(CONTROL, 0, bytes([kind]) + body)


def records(plaintext):
    """(kind, flags, at, nic, frame, gso, body) of each record, up to the first that is bad."""
    while plaintext and plaintext[0] != PADDING:
        if len(plaintext) < 12:
            return
        kind, flags = plaintext[0] & 15, plaintext[0] & 0xF0
        at = int.from_bytes(plaintext[1:4], "little")
        nic, length, frame, gso = struct.unpack("<HHHH", plaintext[4:12])
        body, plaintext = plaintext[12 : 12 + length], plaintext[12 + length :]
        well = {
            WHOLE: at == frame == 0,
            FIRST: True,
            NEXT: flags == gso == 0,
            CONTROL: at == nic == frame == gso == flags == 0,
        }
        gso_bits = flags & (GSO_TCP | GSO_UDP)
        gso_well = flags & 0x80 == 0 and gso_bits in (0, GSO_TCP, GSO_UDP) and (gso_bits == 0) == (gso == 0)
        if len(body) != length or not well.get(kind) or not gso_well:
            return
        yield kind, flags, at, nic, frame, gso, body


class Joiner:
    """§9, "Joining": 16 frames at the most, for a tenth of a second."""

    def __init__(self):
        self.waiting = {}

    def add(self, lane, kind, flags, at, nic, frame, gso, body):
        """The frame that is complete with this part: (nic, flags, gso, bytes); or None."""
        key, now = (lane, frame), time.monotonic()
        self.waiting = {k: p for k, p in self.waiting.items() if now < p["end"]}
        parts = self.waiting.setdefault(key, {"first": None, "bytes": {}, "nic": nic, "end": now + 0.1})
        offset = at if kind == NEXT else 0
        bad = nic != parts["nic"] or not body or (kind == NEXT and at == 0)
        if kind == FIRST and not bad:
            bad = at > 65557 or len(body) < min(at, 192) or parts["first"] not in (None, (at, flags, gso))
            parts["first"] = at, flags, gso
        parts["bytes"][offset] = body
        if bad:
            del self.waiting[key]
            return None
        if len(self.waiting) > 16:
            del self.waiting[next(iter(self.waiting))]
        whole = b""
        while len(whole) in parts["bytes"]:
            whole += parts["bytes"][len(whole)]
        if parts["first"] is None or len(whole) < parts["first"][0]:
            return None
        del self.waiting[key]
        total, flags, gso = parts["first"]
        return (nic, flags, gso, whole) if len(whole) == total else None


def read_blob(blob):
    """§12: {MAC: number} of a blob, and its script."""
    version, _mode, count, script = struct.unpack("<BBHI", blob[:8])
    assert version == 1, f"a blob of version {version}"
    nics, rest = {}, blob[8:]
    for _ in range(count):
        number, mac_address, mtu = struct.unpack("<H6sH", rest[:10])
        nics[mac_address] = number
        rest = rest[10:]
        for _name in ("name", "parent"):
            rest = rest[1 + rest[0] :]
        addresses, rest = rest[0], rest[1:]
        for _ in range(addresses):
            rest = rest[2 + {4: 4, 6: 16}[rest[0]] :]
        assert 68 <= mtu <= 9000, f"an MTU of {mtu}"
    assert len(rest) == script, f"{len(rest)} bytes behind the NICs, {script} of script"
    return nics, rest
