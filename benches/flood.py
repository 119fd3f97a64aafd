#!/usr/bin/env python3
"""What a flood of unwanted datagrams costs a tap-rs that carries traffic.

    cargo build --release --examples && benches/flood.py [--rounds 5] [--seconds 4]

One TCP stream crosses the tunnel: alone, beside a flood to the server, and beside the same flood to a socket of the
server's box where the kernel drops all of it at once. The last is what sending and receiving the flood costs a machine
that plays everybody's part, and what no program there can give back, so the ratio to it is the server's own. Then a client that
was not there before comes, and is timed. At last the flood alone: what the server's process takes of a processor for it,
which other programs on the machine disturb least.
Needs what benches/peers.py needs, which this uses.
"""
import argparse
import os
import re
import statistics
import subprocess
import sys
import time

import peers

FLOODS = [("garbage", 100_000), ("handshakes", 10_000)]
SOURCES = [f"198.18.{n // 250}.{n % 250 + 1}" for n in range(256)]
# Drops everything (one instruction of classic BPF: return 0).
DEAF = """import ctypes, socket, struct, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
program = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0))
s.setsockopt(socket.SOL_SOCKET, 26, struct.pack("@HP", 1, ctypes.addressof(program)))
s.bind(("", {port}))
time.sleep(600)"""
PROGRAM = os.path.join(peers.REPO, "target/release/examples/flood")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rounds", type=int, default=5, help="how often each is measured (5)")
    p.add_argument("--seconds", type=float, default=4, help="how long each load counts (4)")
    given = p.parse_args()
    for program in (PROGRAM, peers.program("tap-rs") or "target/release/tap-rs"):
        if not os.access(program, os.X_OK):
            sys.exit(f"there is no {program}: cargo build --release --bins --examples")
    figures = {}
    for _ in range(given.rounds):
        for kind, rate in FLOODS:
            for name, value in measure(given.seconds, kind, rate).items():
                figures.setdefault((kind, rate), {}).setdefault(name, []).append(value)
    print(f"{given.rounds} rounds of {given.seconds:g} s, medians; {peers.machine()}\n")
    for (kind, rate), rows in figures.items():
        f = {name: statistics.median(values) for name, values in rows.items()}
        print(f"{rate} {kind} a second ({f['sent']:.0f} were sent)")
        print(f"  one stream: alone {f['alone']:.2f} Gbit/s, beside the flood {f['flooded']:.2f}, "
              f"beside one that the kernel drops {f['elsewhere']:.2f}")
        print(f"  {f['flooded'] / f['elsewhere']:.2f} of what is left beside a flood that the kernel drops, "
              f"{f['flooded'] / f['alone']:.2f} of what it is alone")
        print(f"  server: {f['cpu']:.1f} ms of a processor a second for the flood, {f['cpu'] / f['rate'] * 1000:.2f} s for a million")
        print(f"  server: {f['grown']:.0f} kB more than before; a new client has its session after {f['joined']:.2f} s "
              f"(at the most {max(rows['joined']):.2f})\n")


def measure(seconds, kind, rate):
    options = argparse.Namespace(mtu=1500, path_mtu=0, no_uso=False, loss=0, suite="aes")
    with peers.Stage(options) as s:
        s.exec(s.client, "ip", "route", "add", "local", "198.18.0.0/16", "dev", "lo")
        nics = [(peers.NIC_IP, 24, peers.NIC_MAC), ("10.79.0.1", 24, "02:00:00:00:01:51")]
        far, near = peers.tap_rs(s, nics, clients=2)
        s.wait_for_answer()
        end_of(s, near[1])
        deaf = s.start(s.server, sys.executable, "-c", DEAF.format(port=peers.PORT + 1))
        key = peers.run(peers.program("tap-rs"), "pubkey", input=open(os.path.join(s.dir, "server.key")).read()).strip()
        figures = {"alone": up(s, seconds)}
        for name, port in (("elsewhere", peers.PORT + 1), ("flooded", peers.PORT)):
            before = resident(far)
            with Flood(s, kind, rate, seconds * 2 + 8, port, key) as flood:
                figures[name] = up(s, seconds)
                if port == peers.PORT:
                    figures["joined"] = join(s)
                    figures["grown"] = max(0, resident(far) - before)
            figures["sent"] = flood.sent
        with Flood(s, kind, rate, seconds + 1, peers.PORT, key) as flood:
            began, before = time.monotonic(), used(far)
            time.sleep(seconds)
            figures["cpu"] = (used(far) - before) / (time.monotonic() - began) / 1e6
        figures["rate"] = flood.sent
        return figures


class Flood:
    """The flood, for as long as this is entered."""

    def __init__(self, s, kind, rate, seconds, port, key):
        words = [PROGRAM, kind, str(rate), str(seconds), f"{s.there}:{peers.PORT}", key, f"{s.there}:{port}", *SOURCES]
        self.child = subprocess.Popen(["ip", "netns", "exec", s.client, *words], stdout=subprocess.PIPE, text=True)
        peers.expect(self.child, "ready")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sent = float(self.child.stdout.readline() or 0)
        self.child.wait(peers.PATIENCE)


def up(s, seconds):
    return peers.stream(s, s.server, [peers.NIC_IP], s.lan, seconds)[0]


def join(s):
    """Seconds until a client that starts now has its session."""
    began = time.monotonic()
    child = s.start(s.client, peers.program("tap-rs"), "-c", os.path.join(s.dir, "client1.toml"))
    s.wait("session of a new client", lambda: "nic ready" in s.said(child))
    took = time.monotonic() - began
    end_of(s, child)
    return took


def end_of(s, child):
    """Stops a process that is to come back, which therefore is not missed."""
    s.children.remove(child)
    child.terminate()
    child.wait(peers.PATIENCE)


def used(child):
    """Nanoseconds of processors that a process has had."""
    tasks = f"/proc/{child.pid}/task"
    total = 0
    for task in os.listdir(tasks):
        with open(f"{tasks}/{task}/schedstat") as file:
            total += int(file.read().split()[0])
    return total


def resident(child):
    """kB that a process has now."""
    with open(f"/proc/{child.pid}/status") as file:
        return int(re.search(r"VmRSS:\s+(\d+)", file.read()).group(1))


if __name__ == "__main__":
    main()
