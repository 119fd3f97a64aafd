"""A station on the LAN, and the end of the offloads (docs/PROTOCOL.md §10).

It asks the server's kernel behind the projected NIC by ARP, ICMP echo and TCP, and looks at the answers.
"""

import ipaddress
import os
import struct

BROADCAST = b"\xff" * 6
MAC = bytes.fromhex("02beef000001")
FIN, SYN, RST, PSH, ACK, CWR = 1, 2, 4, 8, 16, 128


def fold(data, start=0):
    """The ones'-complement sum, not complemented (RFC 1071)."""
    data += bytes(len(data) % 2)
    total = start + sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def put(data, at, value):
    return data[:at] + struct.pack("!H", value) + data[at + 2 :]


class Packet:
    """Ethernet, IPv4 and TCP or UDP, taken apart; the server of the test sends no other super-frames."""

    def __init__(self, frame):
        self.ethernet, ip = frame[:14], frame[14:]
        header = (ip[0] & 15) * 4
        total = struct.unpack("!H", ip[2:4])[0]
        self.ip, self.protocol = ip[:header], ip[9]
        transport = ip[header:total]
        assert self.ethernet[12:] == b"\x08\x00" and ip[0] >> 4 == 4 and len(transport) == total - header
        length = (transport[12] >> 4) * 4 if self.protocol == 6 else 8
        self.at = 16 if self.protocol == 6 else 6
        self.header, self.payload = transport[:length], transport[length:]

    def pseudo(self):
        transport = len(self.header) + len(self.payload)
        return fold(self.ip[12:20] + struct.pack("!HH", self.protocol, transport))

    def is_partial(self):
        return struct.unpack("!H", self.header[self.at : self.at + 2])[0] == self.pseudo()

    def is_complete(self):
        return fold(self.header + self.payload, self.pseudo()) == 0xFFFF and fold(self.ip) == 0xFFFF

    def completed(self):
        """With a partial checksum completed."""
        sum_ = 0xFFFF ^ fold(self.header + self.payload)
        self.header = put(self.header, self.at, sum_ or (0xFFFF if self.protocol == 17 else 0))
        return self.ethernet + self.ip + self.header + self.payload

    def cut(self, gso):
        for i, at in enumerate(range(0, len(self.payload), gso)):
            part = Packet(self.ethernet + self.ip + self.header + self.payload)
            part.payload = self.payload[at : at + gso]
            last = at + gso >= len(self.payload)
            length = len(self.ip) + len(self.header) + len(part.payload)
            identification = struct.unpack("!H", self.ip[4:6])[0] + i & 0xFFFF
            part.ip = put(put(put(self.ip, 2, length), 4, identification), 10, 0)
            part.ip = put(part.ip, 10, 0xFFFF ^ fold(part.ip))
            if self.protocol == 6:
                sequence = struct.unpack("!I", self.header[4:8])[0] + at & 0xFFFFFFFF
                drop = (0 if last else FIN | PSH) | (CWR if i else 0)
                flags = bytes([self.header[13] & ~drop & 0xFF])
                number = struct.pack("!I", sequence)
                part.header = self.header[:4] + number + self.header[8:13] + flags + self.header[14:]
            else:
                part.header = put(self.header, 4, 8 + len(part.payload))
            part.header = put(part.header, self.at, part.pseudo())
            yield part.completed()


def finish(frame, partial, gso):
    """The frames that a frame of the session is on a LAN: checksums completed, super-frames cut."""
    if not partial:
        assert gso == 0, "GSO without CSUM"
        return [frame]
    packet = Packet(frame)
    assert packet.is_partial(), "the checksum is not the pseudo-header's sum"
    if not gso or len(packet.payload) <= gso:
        return [packet.completed()]
    return list(packet.cut(gso))


class Station:
    def __init__(self, client, nic_mac, nic_ip, ip):
        self.client, self.nic_mac = client, nic_mac
        self.nic_ip, self.ip = (ipaddress.IPv4Address(text).packed for text in (nic_ip, ip))

    def arp_frame(self, operation, to):
        target = bytes(6) if operation == 1 else self.nic_mac
        body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation) + MAC + self.ip + target + self.nic_ip
        return to + MAC + b"\x08\x06" + body

    def ip_frame(self, protocol, body):
        start = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0x4000, 64, protocol, 0) + self.ip + self.nic_ip
        start = put(start, 10, 0xFFFF ^ fold(start))
        return self.nic_mac + MAC + b"\x08\x00" + start + body

    def listen(self, frame):
        """Answers the kernel's own ARP requests; the body of IPv4 from the NIC: (protocol, bytes); else None."""
        assert frame[6:12] == self.nic_mac, "a frame that is not from the NIC's MAC"
        if frame[12:14] == b"\x08\x06" and frame[20:22] == b"\x00\x01" and frame[38:42] == self.ip:
            self.client.send_frame(self.arp_frame(2, self.nic_mac))
        if frame[:6] != MAC or frame[12:14] != b"\x08\x00" or frame[26:34] != self.nic_ip + self.ip:
            return None
        header, total = (frame[14] & 15) * 4, struct.unpack("!H", frame[16:18])[0]
        return frame[23], frame[14 + header : 14 + total]

    def arp(self):
        wanted = MAC + self.nic_mac + b"\x08\x06" + struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2)
        wanted += self.nic_mac + self.nic_ip + MAC + self.ip

        def receive(frame):
            self.listen(frame)
            return frame[:42] == wanted or None

        self.client.talk(lambda: [self.arp_frame(1, BROADCAST)], receive)

    def echo(self, length):
        body = os.urandom(length)
        request = struct.pack("!BBHHH", 8, 0, 0, 7, length) + body
        request = put(request, 2, 0xFFFF ^ fold(request))
        reply = put(b"\x00" + request[1:], 2, 0)
        reply = put(reply, 2, 0xFFFF ^ fold(reply))

        def receive(frame):
            return self.listen(frame) == (1, reply) or None

        self.client.talk(lambda: [self.ip_frame(1, request)], receive)

    def tcp(self, port):
        """Reads a connection to its end: bytes that count up modulo 251. Every packet's checksums are looked at."""
        state = {"next": None, "got": b"", "flags": SYN}
        first, my_port = int.from_bytes(os.urandom(3), "big"), 0x8000 | int.from_bytes(os.urandom(2), "big")

        def segment():
            sequence = first if state["flags"] & SYN else first + 1
            fields = my_port, port, sequence, state["next"] or 0, 0x50, state["flags"], 65535, 0, 0
            header = struct.pack("!HHIIBBHHH", *fields)
            pseudo = fold(self.ip + self.nic_ip + struct.pack("!HH", 6, 20))
            return self.ip_frame(6, put(header, 16, 0xFFFF ^ fold(header, pseudo)))

        def receive(frame):
            found = self.listen(frame)
            if not found or found[0] != 6 or found[1][:4] != struct.pack("!HH", port, my_port):
                return None
            packet = Packet(frame)
            assert packet.is_complete(), "a wrong checksum"
            sequence, flags = struct.unpack("!I", packet.header[4:8])[0], packet.header[13]
            assert not flags & RST, "the connection was refused"
            if flags & SYN:
                state.update(next=sequence + 1 & 0xFFFFFFFF, flags=ACK)
            elif sequence == state["next"]:
                state["got"] += packet.payload
                state["next"] = sequence + len(packet.payload) + (flags & FIN) & 0xFFFFFFFF
                if flags & FIN:
                    state["flags"] = RST | ACK
                    self.client.send_frame(segment())
                    return True
            self.client.send_frame(segment())
            return None

        self.client.talk(lambda: [segment()], receive)
        got = state["got"]
        assert got and got == bytes(i % 251 for i in range(len(got))), "other bytes than the server's"
        print(f"tcp {len(got)} bytes")
