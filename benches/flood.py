#!/usr/bin/env python3
"""What a flood of unwanted datagrams costs a tap-rs that carries traffic.

    cargo build --release --examples && benches/flood.py [--rounds 5] [--seconds 4]

One TCP stream crosses the tunnel: alone, beside a flood to the server, and beside the same flood to a socket of the
server's box that nobody reads. The last is what sending and receiving the flood costs a machine that plays everybody's
part, so the ratio to it is the server's own. Then a client that was not there before comes, and is timed.
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
              f"beside one that nobody reads {f['elsewhere']:.2f}")
        print(f"  {f['flooded'] / f['elsewhere']:.2f} of what is left beside a flood that nobody reads, "
              f"{f['flooded'] / f['alone']:.2f} of what it is alone")
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
        deaf = s.start(s.server, sys.executable, "-c",
                       f"import socket, time; s = socket.socket(2, 2); s.bind(('', {peers.PORT + 1})); time.sleep(600)")
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
    return peers.stream(s, s.server, peers.NIC_IP, s.lan, 1, seconds)[0]


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


def resident(child):
    """kB that a process has now."""
    with open(f"/proc/{child.pid}/status") as file:
        return int(re.search(r"VmRSS:\s+(\d+)", file.read()).group(1))


if __name__ == "__main__":
    main()
