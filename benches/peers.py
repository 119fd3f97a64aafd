#!/usr/bin/env python3
"""tap-rs beside other tunnels, on one machine, doing the same job.

    lan ── eth0 ═══ lan0 ── client ── wan0 ═══════════ wan0 ── server
    10.78.0.2                192.0.2.1      MTU 1500    192.0.2.2, and behind the tunnel 10.78.0.150

A host on the client's LAN talks to 10.78.0.150, which is the server, at the far end of the tunnel: over Ethernet
(tap-rs and the layer 2 peers), or routed, where a peer knows only IP. `direct` is no tunnel at all, the client a
plain bridge: what the machine itself can do. All of it is in network namespaces of this run's own.

    benches/peers.py                           every peer that is installed, every measure
    benches/peers.py --only direct,tap-rs      these
    benches/peers.py --list                    which can run here
    benches/peers.py --loss 1                  a lossy underlay; also --no-uso, --mtu 9000, --path-mtu 1280
    benches/peers.py --rtt-under-load          and the round trip while a stream runs
    benches/peers.py --conditions              tap-rs under each of these and by ChaCha20-Poly1305, beside itself without
    benches/peers.py --nics 1,10,100,500       how tap-rs scales; also --clients 1,10,100, and --streams 500 in all
    benches/peers.py --all-figures --markdown  everything that docs/PERFORMANCE.md has
    benches/peers.py --svg docs/performance.svg --json figures.json

Needs root, Linux, Python 3.10, iproute2, ethtool, nft, ping, and the peers' own programs: on PATH or in a folder named
by PEERS_BIN. tap-rs is target/release/tap-rs (`cargo build --release`) or what TAP_RS names.

Rounds go through the peers in turn, so that what the machine does meanwhile hits all alike; a figure is the median.
Load, both ends and the kernel share one machine: compare within one run, and never with another machine's.
"""
import argparse
import atexit
import collections
import contextlib
import json
import os
import re
import selectors
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

REPO = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LAN_IP, NIC_IP, NIC_MAC = "10.78.0.2", "10.78.0.150", "02:00:00:00:01:50"
PORT, LOAD_PORT = 7077, 5201
# From the first byte of a load until it counts: TCP has found its window by then.
WARM = 0.5
# Nothing that is waited for takes longer.
PATIENCE = 30


# ---- the load: this same file, run inside a namespace -------------------------------------------------------------

def sink_tcp(connections, seconds):
    """Takes so many connections and prints `begin`, then what arrived a second, in bytes."""
    listener = socket.create_server(("0.0.0.0", LOAD_PORT), backlog=1024)
    listener.settimeout(PATIENCE)
    print("ready", flush=True)
    selector, room = selectors.DefaultSelector(), memoryview(bytearray(1 << 20))
    for _ in range(connections):
        connection, _ = listener.accept()
        connection.setblocking(False)
        selector.register(connection, selectors.EVENT_READ)
    begin, total, counting = time.monotonic() + WARM, 0, False
    while True:
        events = selector.select(1)
        now = time.monotonic()
        if not counting and now >= begin:
            begin, total, counting = now, 0, True
            print("begin", flush=True)
        if counting and now >= begin + seconds:
            break
        for key, _ in events:
            with contextlib.suppress(BlockingIOError, ConnectionError):
                total += key.fileobj.recv_into(room)
    print(total / (now - begin), flush=True)
    sys.stdin.read()


def source_tcp(addresses, seconds):
    """Sends to all of these addresses as fast as they take it."""
    selector, bytes_ = selectors.DefaultSelector(), memoryview(os.urandom(1 << 20))
    for address in addresses:
        connection = socket.create_connection((address, LOAD_PORT), PATIENCE)
        connection.setblocking(False)
        selector.register(connection, selectors.EVENT_WRITE)
    end = time.monotonic() + seconds + WARM + 1
    while time.monotonic() < end:
        for key, _ in selector.select(1):
            with contextlib.suppress(BlockingIOError):
                key.fileobj.send(bytes_)


def sink_udp(seconds):
    """Prints how many datagrams arrive a second."""
    target = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with contextlib.suppress(OSError):
        target.setsockopt(socket.SOL_SOCKET, getattr(socket, "SO_RCVBUFFORCE", 33), 8 << 20)
    target.bind(("0.0.0.0", LOAD_PORT))
    print("ready", flush=True)
    target.settimeout(PATIENCE)
    receive, room = target.recv_into, bytearray(128)
    receive(room)
    end = time.monotonic() + WARM
    while time.monotonic() < end:
        receive(room)
    print("begin", flush=True)
    begin, count = time.monotonic(), 0
    target.settimeout(1)
    with contextlib.suppress(TimeoutError):
        while time.monotonic() < begin + seconds:
            for _ in range(64):
                receive(room)
            count += 64
    print(count / (time.monotonic() - begin), flush=True)
    sys.stdin.read()


def source_udp(address, length, seconds):
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.connect((address, LOAD_PORT))
    send, payload, end = sender.send, bytes(length), time.monotonic() + seconds + WARM + 1
    while time.monotonic() < end:
        for _ in range(64):
            with contextlib.suppress(OSError):
                send(payload)


# ---- the stage ------------------------------------------------------------------------------------------------------

def run(*words, check=True, **options):
    done = subprocess.run(words, text=True, capture_output=True, timeout=PATIENCE, **options)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stdout}{done.stderr}")
    return done.stdout


def program(name):
    """Where a program is, if anywhere."""
    ours = {"tap-rs": "target/release/tap-rs", "relay": "target/release/examples/relay"}
    if name in ours:
        path = os.environ.get(name.upper().replace("-", "_"), os.path.join(REPO, ours[name]))
        return os.path.abspath(path) if os.access(path, os.X_OK) else None
    return shutil.which(name, path=os.environ.get("PEERS_BIN", "") + os.pathsep + os.environ["PATH"])


class Stage:
    """Three namespaces, four with a router, and what runs in them. Leaves nothing behind."""

    number = 0

    def __init__(self, options):
        self.options, self.children, self.logs = options, [], {}
        Stage.number += 1
        prefix = f"peers-{os.getpid()}-{Stage.number}"
        self.lan, self.client, self.server, self.router = (f"{prefix}-{n}" for n in ("lan", "client", "server", "router"))
        self.here, self.there = ("192.0.2.1", "192.0.2.2") if not options.path_mtu else ("198.51.100.1", "192.0.2.2")
        self.dir = tempfile.mkdtemp(prefix="tap-rs-peers-")

    def __enter__(self):
        atexit.register(self.clear)
        try:
            self.build()
        except BaseException:
            self.clear()
            raise
        return self

    def __exit__(self, *_):
        self.clear()

    def build(self):
        o = self.options
        names = [self.lan, self.client, self.server] + ([self.router] if o.path_mtu else [])
        for name in names:
            run("ip", "netns", "add", name)
            self.ip(name, "link set lo up")
            self.sysctl(name, "net.ipv6.conf.all.disable_ipv6=1", "net.ipv4.tcp_congestion_control=cubic")
        run("ip", "link", "add", "eth0", "netns", self.lan, "type", "veth", "peer", "name", "lan0", "netns", self.client)
        self.ip(self.lan, f"addr add {LAN_IP}/24 dev eth0")
        self.ip(self.lan, f"link set eth0 mtu {o.mtu} up")
        self.ip(self.client, f"link set lan0 mtu {o.mtu} up")
        if o.path_mtu:
            self.wire((self.client, "wan0", self.here), (self.router, "in", "198.51.100.2"), 1500)
            self.wire((self.router, "out", "192.0.2.1"), (self.server, "wan0", self.there), o.path_mtu)
            self.sysctl(self.router, "net.ipv4.ip_forward=1")
            self.ip(self.client, "route add default via 198.51.100.2")
            self.ip(self.server, "route add default via 192.0.2.1")
        else:
            self.wire((self.client, "wan0", self.here), (self.server, "wan0", self.there), 1500)
            # Some programs do not start without a way to the Internet.
            self.ip(self.client, f"route add default via {self.there}")
            self.ip(self.server, f"route add default via {self.here}")
        for name in (self.client, self.server):
            if o.no_uso or o.loss:
                self.exec(name, "ethtool", "-K", "wan0", "tx-udp-segmentation", "off", "gso", "off", "gro", "off", check=False)
            if o.loss:
                rules = "table netdev loss {\n chain i {\n  type filter hook ingress device \"wan0\" priority 0;\n" \
                        f"  ip protocol udp numgen random mod 10000 < {int(o.loss * 100)} drop\n }}\n}}\n"
                self.exec(name, "nft", "-f", self.write("loss.nft", rules))

    def wire(self, a, b, mtu):
        run("ip", "link", "add", a[1], "netns", a[0], "type", "veth", "peer", "name", b[1], "netns", b[0])
        for name, link, address in (a, b):
            self.ip(name, f"addr add {address}/24 dev {link}")
            self.ip(name, f"link set {link} mtu {mtu} up")

    def ip(self, name, words):
        return run("ip", "-n", name, *words.split())

    def exec(self, name, *words, check=True):
        return run("ip", "netns", "exec", name, *words, check=check)

    def sysctl(self, name, *settings):
        self.exec(name, "sysctl", "-qw", *settings, check=False)

    def write(self, name, text):
        path = os.path.join(self.dir, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
        return path

    def start(self, name, *words, **environment):
        """A tunnel's process, in a session of its own, with a log."""
        log = os.path.join(self.dir, f"log-{len(self.children)}")
        with open(log, "wb") as file:
            child = subprocess.Popen(["ip", "netns", "exec", name, *words], stdin=subprocess.DEVNULL, stdout=file,
                                     stderr=file, start_new_session=True, env={**os.environ, **environment})
        self.children.append(child)
        self.logs[child.pid] = log
        return child

    def said(self, child):
        with open(self.logs[child.pid], errors="replace") as file:
            return file.read()

    def wait(self, what, happened, patience=PATIENCE):
        end = time.monotonic() + patience
        while not happened():
            dead = [c for c in self.children if c.poll() is not None]
            if dead or time.monotonic() > end:
                raise RuntimeError(f"no {what}:\n" + "\n".join(self.said(c)[-600:] for c in dead or self.children))
            time.sleep(0.02)

    def wait_for_link(self, name, link):
        there = lambda: subprocess.run(["ip", "-n", name, "link", "show", link], capture_output=True).returncode == 0
        self.wait(f"{link} in {name}", there)

    def wait_for_answer(self):
        once = ["ip", "netns", "exec", self.lan, "ping", "-qc1", "-W1", NIC_IP]
        self.wait("answer", lambda: subprocess.run(once, capture_output=True).returncode == 0)

    def bridge(self, link):
        """The client's end of a layer 2 tunnel, on the LAN."""
        self.ip(self.client, "link add br0 type bridge")
        for port in (link, "lan0"):
            self.ip(self.client, f"link set {port} mtu {self.options.mtu} up")
            self.ip(self.client, f"link set {port} master br0")
        self.ip(self.client, "link set br0 up")

    def nic(self, link):
        """The server's end of a layer 2 tunnel, with the MAC and the address that the LAN knows."""
        self.ip(self.server, f"link set {link} down")
        self.ip(self.server, f"link set {link} address {NIC_MAC} mtu {self.options.mtu} up")
        self.ip(self.server, f"addr add {NIC_IP}/24 dev {link}")

    def route(self, near, far):
        """A layer 3 tunnel: the client answers ARP for the address and routes it."""
        self.sysctl(self.client, "net.ipv4.ip_forward=1", "net.ipv4.conf.all.proxy_arp=1")
        self.ip(self.client, "addr add 10.78.0.1/24 dev lan0")
        mtu = min(1500, self.options.path_mtu or 1500) - 80
        self.ip(self.client, f"link set {near} mtu {mtu} up")
        self.ip(self.client, f"route add {NIC_IP}/32 dev {near}")
        self.ip(self.server, f"link set {far} mtu {mtu} up")
        self.ip(self.server, f"addr add {NIC_IP}/32 dev {far}")
        self.ip(self.server, f"route add 10.78.0.0/24 dev {far} src {NIC_IP}")

    def processes(self, children=None):
        """Every process of the tunnel: `ip netns exec` becomes what it runs, and that may have children."""
        for child in children or self.children:
            if child.poll() is None:
                yield from (int(pid) for pid in run("pgrep", "-s", str(child.pid), check=False).split())

    def cpu(self, children=None):
        """CPU seconds that the tunnel's processes have used."""
        ticks = 0
        for pid in self.processes(children):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as file:
                fields = file.read().rsplit(") ", 1)[1].split()
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def memory(self, pids=None):
        """kB that each process had resident at its most."""
        peaks = []
        for pid in pids or self.processes():
            with contextlib.suppress(OSError), open(f"/proc/{pid}/status") as file:
                peaks += [int(n) for n in re.findall(r"VmHWM:\s+(\d+)", file.read())]
        return peaks

    def load(self, sink, source, during=None):
        """Runs one load; `sink` and `source` are (namespace, what). Returns the rate, and what `during` made of it."""
        me = [sys.executable, os.path.abspath(__file__)]
        command = lambda name, what: ["ip", "netns", "exec", name, *me, *map(str, what)]
        with contextlib.ExitStack() as stack:
            to = subprocess.Popen(command(*sink), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            stack.callback(end_of, to)
            expect(to, "ready")
            of = subprocess.Popen(command(*source), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            stack.callback(end_of, of)
            expect(to, "begin")
            extra = during() if during else None
            return float(expect(to)), extra

    def clear(self):
        atexit.unregister(self.clear)
        for child in self.children:
            for number in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                    os.killpg(child.pid, number)
                    child.wait(3)
                    break
        self.children = []
        for name in (self.lan, self.client, self.server, self.router):
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
        shutil.rmtree(self.dir, ignore_errors=True)


def end_of(child):
    child.kill()
    child.wait()


def expect(child, word=None):
    """The next line that a load prints."""
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        if not selector.select(PATIENCE):
            raise RuntimeError("the load got nowhere")
    line = child.stdout.readline().strip()
    if not line or word and line != word:
        raise RuntimeError(f"the load said {line!r}")
    return line


# ---- the peers: each makes the NIC's address answer on the LAN ------------------------------------------------------

def direct(s):
    """no tunnel: the client bridges LAN and underlay"""
    s.ip(s.client, "addr flush dev wan0")
    s.ip(s.server, "addr flush dev wan0")
    s.bridge("wan0")
    s.nic("wan0")


def vxlan(s):
    """the kernel's VXLAN, nothing encrypted"""
    for name, local, remote in ((s.client, s.here, s.there), (s.server, s.there, s.here)):
        s.ip(name, f"link add vx0 type vxlan id 7 local {local} remote {remote} dstport 4789")
    s.bridge("vx0")
    s.nic("vx0")


def wireguard(binary, *words):
    def start(s):
        """WireGuard in user space; layer 3"""
        private = {name: run("wg", "genkey").strip() for name in (s.client, s.server)}
        public = {name: run("wg", "pubkey", input=key).strip() for name, key in private.items()}
        # Its control socket is named by the interface, whatever the namespace.
        links = {name: f"pw{os.getpid() % 100000}{side}{Stage.number}" for name, side in ((s.client, "c"), (s.server, "s"))}
        for name, link in links.items():
            s.start(name, program(binary), *words, link, WG_PROCESS_FOREGROUND="1")
            s.wait_for_link(name, link)
        for name, other, rest in ((s.server, s.client, []), (s.client, s.server, ["endpoint", f"{s.there}:{PORT}"])):
            key = s.write(f"{name}.key", private[name])
            words_ = ["wg", "set", links[name], "listen-port", str(PORT), "private-key", key, "peer", public[other],
                      "allowed-ips", "0.0.0.0/0", *rest]
            s.wait("control socket", lambda: subprocess.run(["ip", "netns", "exec", name, *words_], capture_output=True).returncode == 0)
        s.route(links[s.client], links[s.server])
    return start


def openvpn(s):
    """OpenVPN over a tap, AES-256-GCM"""
    print_ = {}
    for name in (s.client, s.server):
        stem = os.path.join(s.dir, name)
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "9",
            "-subj", f"/CN={name}", "-keyout", f"{stem}.pem", "-out", f"{stem}.crt")
        print_[name] = run("openssl", "x509", "-in", f"{stem}.crt", "-noout", "-fingerprint", "-sha256").split("=")[1].strip()
    for name, other, role in ((s.server, s.client, f"--tls-server --dh none --port {PORT}"),
                              (s.client, s.server, f"--tls-client --nobind --remote {s.there} {PORT}")):
        stem = os.path.join(s.dir, name)
        s.start(name, *f"openvpn --dev ov0 --dev-type tap --proto udp --data-ciphers AES-256-GCM --tun-mtu {s.options.mtu} "
                f"--sndbuf 1048576 --rcvbuf 1048576 --cert {stem}.crt --key {stem}.pem --peer-fingerprint {print_[other]} {role}".split())
        s.wait_for_link(name, "ov0")
    s.bridge("ov0")
    s.nic("ov0")


def fastd(s):
    """fastd over a tap, salsa2012+umac"""
    key = {name: re.findall(r"[0-9a-f]{64}", run("fastd", "--generate-key")) for name in (s.client, s.server)}
    for name, other, bind, remote in ((s.server, s.client, f"bind {s.there}:{PORT};", ""),
                                      (s.client, s.server, "", f"remote {s.there}:{PORT};")):
        config = f'log level warn; mode tap; interface "fd0"; method "salsa2012+umac"; mtu {s.options.mtu}; {bind}\n' \
                 f'secret "{key[name][0]}"; peer "other" {{ key "{key[other][1]}"; {remote} }}\n'
        s.start(name, "fastd", "--config", s.write(f"{name}.conf", config))
        s.wait_for_link(name, "fd0")
    s.bridge("fd0")
    s.nic("fd0")


def tinc(s):
    """tinc 1.0 as a switch, AES-256-CBC"""
    hosts = {}
    for me, extra, address in (("near", "ConnectTo = far\n", ""), ("far", "", f"Address = {s.there}\n")):
        s.write(f"{me}/tinc.conf", f"Name = {me}\nMode = switch\nDeviceType = tap\nInterface = tn0\n{extra}")
        hosts[me] = s.write(f"{me}/hosts/{me}", f"Port = {PORT}\nCipher = aes-256-cbc\nDigest = sha256\n{address}")
        run("tincd", "-c", os.path.join(s.dir, me), "-K2048", input="\n\n")
    for me, other, name in (("far", "near", s.server), ("near", "far", s.client)):
        shutil.copy(hosts[other], os.path.join(s.dir, me, "hosts", other))
        s.start(name, "tincd", "-c", os.path.join(s.dir, me), "-D", "--pidfile", os.path.join(s.dir, f"{me}.pid"))
        s.wait_for_link(name, "tn0")
    s.bridge("tn0")
    s.nic("tn0")


def vpncloud(s):
    """VpnCloud over a tap, AES-256-GCM"""
    common = [program("vpncloud"), "-t", "tap", "-d", "vc0", "-p", "bench", "--algorithm", "aes256", "-m", "switch", "--no-port-forwarding"]
    for name, words in ((s.server, ["-l", f"{s.there}:{PORT}"]), (s.client, ["-l", f"{s.here}:{PORT}", "-c", f"{s.there}:{PORT}"])):
        s.start(name, *common, *words)
        s.wait_for_link(name, "vc0")
    s.bridge("vc0")
    s.nic("vc0")


def tap_rs(s, nics=None, clients=1):
    """tap-rs, macvtap on the LAN and tap on the server"""
    nics, exe = nics or [(NIC_IP, 24, NIC_MAC)], program("tap-rs")
    keygen = lambda who: run(exe, "keygen", "--out", os.path.join(s.dir, f"{who}.key")).split()[-1]
    public, share = keygen("server"), -(-len(nics) // clients)
    common = f"mtu = {s.options.mtu}\nlog = \"info\"\n"
    listen = f'[server]\nbind_addr = "{s.there}:{PORT}"\n'
    server = f'tap_mode = "tap"\nrun_mode = "server"\nprivate_key = "server.key"\n{common}{listen}'
    configs = []
    for c in range(clients):
        server += f'[[clients]]\nname = "client{c}"\npublic_key = "{keygen(f"client{c}")}"\n'
        config = f'tap_mode = "macvtap"\nrun_mode = "client"\nprivate_key = "client{c}.key"\nsuite = "{s.options.suite}"\n' \
                 f'{common}{listen}public_key = "{public}"\n'
        for n, (ip, prefix, mac) in list(enumerate(nics))[c * share:(c + 1) * share]:
            entry = f'ip = "{ip}/{prefix}"\nmac = "{mac}"\n'
            server += f'[[{"nics" if clients == 1 else "clients.nics"}]]\nifname = "tap{n}"\n{entry}'
            config += f'[[nics]]\nifname = "mv{n}"\nparent = "lan0"\n{entry}'
        configs.append(s.write(f"client{c}.toml", config))
    ready = lambda child, count: lambda: s.said(child).count("nic ready") >= count
    far = s.start(s.server, exe, "-c", s.write("server.toml", server))
    s.wait("NICs on the server", ready(far, len(nics)))
    near = [s.start(s.client, exe, "-c", config) for config in configs]
    for child in near:
        s.wait("NICs on a client", ready(child, share))
    return far, near


def relay(s):
    """benches/relay.rs: nothing but a read, a send, a receive and a write; what any tunnel in user space can reach"""
    exe, nic = program("relay"), (NIC_MAC, f"{NIC_IP}/24")
    far = s.start(s.server, exe, "server", "tap0", "-", *nic, f"{s.there}:{PORT}", f"{s.here}:{PORT}")
    near = s.start(s.client, exe, "client", "mv0", "lan0", *nic, f"{s.here}:{PORT}", f"{s.there}:{PORT}")
    for child in (far, near):
        s.wait("a NIC of the relay", lambda: "nic ready" in s.said(child))


Peer = collections.namedtuple("Peer", "start program layer")
PEERS = {
    "direct": Peer(direct, None, 2),
    "vxlan": Peer(vxlan, None, 2),
    "relay": Peer(relay, "relay", 2),
    "tap-rs": Peer(tap_rs, "tap-rs", 2),
    "wireguard-go": Peer(wireguard("wireguard-go", "-f"), "wireguard-go", 3),
    "gotatun": Peer(wireguard("gotatun", "-f", "--disable-drop-privileges"), "gotatun", 3),
    "boringtun": Peer(wireguard("boringtun-cli", "-f", "--disable-drop-privileges"), "boringtun-cli", 3),
    "openvpn": Peer(openvpn, "openvpn", 2),
    "fastd": Peer(fastd, "fastd", 2),
    "tinc": Peer(tinc, "tincd", 2),
    "vpncloud": Peer(vpncloud, "vpncloud", 2),
}
NOT_TUNNELS = ("direct", "vxlan", "relay")


def missing(name):
    """Why a peer cannot run here; empty where it can."""
    needs = [n for n in (PEERS[name].program, "wg" if PEERS[name].layer == 3 else None) if n]
    return ", ".join(n for n in needs if not program(n))


# ---- the measures -------------------------------------------------------------------------------------------------------

# Name, heading, unit, format; how it is compared: a rate is better the higher, a cost the lower.
MEASURES = [
    ("up", "one stream up", "Gbit/s", "{:.2f}", "rate"),
    ("down", "one stream down", "Gbit/s", "{:.2f}", "rate"),
    ("four", "four streams up", "Gbit/s", "{:.2f}", "rate"),
    ("small", "64-byte UDP", "thousand/s", "{:.0f}", "rate"),
    ("rtt", "round trip", "µs", "{:.0f}", "cost"),
    ("rtt_load_p50", "under load, median", "ms", "{:.2f}", "cost"),
    ("rtt_load_p99", "under load, 99 %", "ms", "{:.2f}", "cost"),
    ("cpu", "CPU per GB up", "s", "{:.2f}", "cost"),
    ("cpu_down", "CPU per GB down", "s", "{:.2f}", "cost"),
    ("memory", "memory", "MB", "{:.1f}", "cost"),
]


def pings(s, count, gap):
    """Round trips in ms, sorted; a request without an answer counts as a second."""
    said = s.exec(s.lan, "ping", "-i", str(gap), "-c", str(count), "-W", "1", NIC_IP, check=False)
    times = [float(t) for t in re.findall(r"time=([\d.]+)", said)]
    return sorted(times + [1000.0] * (count - len(times)))


def stream(s, to, addresses, frm, seconds, during=None):
    """A TCP stream to each of these: Gbit/s, the tunnel's CPU seconds for a GB, and what `during` gives."""
    begun = []

    def at_begin():
        begun.append((time.monotonic(), s.cpu()))
        return during() if during else None

    sink, source = (to, ["sink-tcp", len(addresses), seconds]), (frm, ["source-tcp", seconds, *addresses])
    rate, extra = s.load(sink, source, at_begin)
    (since, before), now = begun[0], time.monotonic()
    if not rate:
        raise RuntimeError("a stream carried nothing")
    return rate * 8e-9, (s.cpu() - before) / (rate * (now - since) * 1e-9), extra


def measure(s, options):
    t, m = options.seconds, {}
    wanted = set(options.measures)
    if "up" in wanted:
        m["up"], m["cpu"], _ = stream(s, s.server, [NIC_IP], s.lan, t)
    if "down" in wanted:
        m["down"], m["cpu_down"], _ = stream(s, s.lan, [LAN_IP], s.server, t)
    if "four" in wanted:
        m["four"], _, _ = stream(s, s.server, [NIC_IP] * 4, s.lan, t)
    if "rtt" in wanted:
        times = pings(s, 400, 0.002)
        m["rtt"] = times[len(times) // 2] * 1000
    if options.rtt_under_load:
        ping = lambda: pings(s, int(t * 180), 0.005)
        _, _, times = stream(s, s.server, [NIC_IP], s.lan, t, ping)
        m["rtt_load_p50"], m["rtt_load_p99"] = times[len(times) // 2], times[len(times) * 99 // 100]
    if "small" in wanted:
        m["small"], _ = s.load((s.server, ["sink-udp", t]), (s.lan, ["source-udp", NIC_IP, 64, t]))
        m["small"] /= 1000
    if s.children:
        m["memory"] = max(s.memory()) / 1024
    else:
        m.pop("cpu", None), m.pop("cpu_down", None)
    return m


def compare(rounds, entries):
    """Rounds through all entries, each a peer and its options: the median of each measure, by entry."""
    got = {name: [] for name in entries}
    for n in range(rounds):
        for name, (peer, options) in entries.items():
            try:
                with Stage(options) as s:
                    PEERS[peer].start(s)
                    s.wait_for_answer()
                    got[name].append(measure(s, options))
                told = "  ".join(f"{k} {v:.2f}" for k, v in got[name][-1].items())
            except (RuntimeError, subprocess.TimeoutExpired, ValueError) as error:
                told = f"failed: {error}"
            print(f"round {n + 1} of {rounds}, {name}: {told}", file=sys.stderr)
    middle = lambda rounds, key: statistics.median(r[key] for r in rounds if key in r)
    return {name: {key: middle(rounds, key) for key, *_ in MEASURES if any(key in r for r in rounds)} for name, rounds in got.items()}


def peers(options):
    """Each peer, all under the same options."""
    return compare(options.rounds, {name: (name, options) for name in options.only})


# Name, what is other than usual, and what it is held against.
CONDITIONS = [
    ("as it is", {}, None),
    ("ChaCha20-Poly1305", {"suite": "chacha"}, "as it is"),
    ("a LAN of MTU 1400", {"mtu": 1400}, "as it is"),
    ("a LAN of MTU 9000", {"mtu": 9000}, "as it is"),
    ("through a router", {"path_mtu": 1500}, None),
    ("to a link of MTU 1280", {"path_mtu": 1280}, "through a router"),
    ("every datagram on its own", {"no_uso": True}, None),
    ("and 1 % of them lost each way", {"no_uso": True, "loss": 1}, "every datagram on its own"),
]


def conditions(options):
    """tap-rs under each condition, in turn."""
    return compare(options.rounds, {name: ("tap-rs", with_(options, **changes)) for name, changes, _ in CONDITIONS})


def with_(options, **changes):
    return argparse.Namespace(**{**vars(options), **changes})


def scale(options, counts, of_clients):
    """tap-rs with more and more NICs, or clients of one NIC each: all of them sending at once."""
    rows = {count: [] for count in counts}
    for n in range(options.rounds):
        for count in counts:
            try:
                with Stage(options) as s:
                    row = scaled(s, count, of_clients)
                # What so many streams come to without any tunnel.
                with Stage(options) as s:
                    direct(s)
                    s.wait_for_answer()
                    row["direct"], _, _ = stream(s, s.server, [NIC_IP] * (options.streams or count), s.lan, options.seconds)
                rows[count].append(row)
                told = "  ".join(f"{k} {v:.2f}" for k, v in row.items())
            except (RuntimeError, subprocess.TimeoutExpired, ValueError) as error:
                told = f"failed: {error}"
            print(f"round {n + 1} of {options.rounds}, {count} {'clients' if of_clients else 'NICs'}: {told}", file=sys.stderr)
    out = {}
    for count, rounds in rows.items():
        if rounds:
            out[count] = {key: statistics.median(r[key] for r in rounds) for key in rounds[0]}
    if len(out) > 1:
        least = min(out)
        for count, row in out.items():
            for side in ("server", "client"):
                growth = (row[f"{side}_kB"] - out[least][f"{side}_kB"]) / max(1, count - least)
                row[f"{side}_growth_kB"] = growth if count > least else 0.0
    return out


def scaled(s, count, of_clients):
    # Each NIC is in a subnet of its own, so that the server answers by the NIC that was asked.
    nets = [(f"10.{100 + n // 64}.{n % 64 * 4}", f"02:00:00:01:{n // 256:02x}:{n % 256:02x}") for n in range(count)]
    s.sysctl(s.server, "net.ipv4.conf.all.arp_ignore=1")
    s.sysctl(s.lan, *[f"net.ipv4.neigh.default.gc_thresh{i}=8192" for i in (1, 2, 3)])
    s.ip(s.lan, "link set eth0 address 02:00:00:02:00:02")
    lan = "".join(f"addr add {net}.2/24 dev eth0\nneigh replace {net}.1 lladdr {mac} dev eth0\n" for net, mac in nets)
    run("ip", "-n", s.lan, "-batch", s.write("lan.batch", lan))
    far, near = tap_rs(s, [(f"{net}.1", 24, mac) for net, mac in nets], count if of_clients else 1)
    server = "".join(f"neigh replace {net}.2 lladdr 02:00:00:02:00:02 dev tap{n}\n" for n, (net, _) in enumerate(nets))
    run("ip", "-n", s.server, "-batch", s.write("server.batch", server))
    addresses = [f"{nets[n % count][0]}.1" for n in range(s.options.streams or count)]
    of = lambda: [s.cpu(), s.cpu([far])]
    before = of()
    total, cpu, _ = stream(s, s.server, addresses, s.lan, s.options.seconds)
    both, server = (now - then for now, then in zip(of(), before))
    return {"total": total, "cpu": cpu, "server_cpu": cpu * server / both, "server_kB": max(s.memory([far.pid])), "client_kB": max(s.memory([c.pid for c in near]))}


# ---- telling ------------------------------------------------------------------------------------------------------------

def fastest(figures, key, how):
    """The best peer in one measure: not tap-rs, and a tunnel."""
    rivals = {n: f[key] for n, f in figures.items() if n not in NOT_TUNNELS + ("tap-rs",) and key in f}
    return (min if how == "cost" else max)(rivals, key=rivals.get) if rivals else None


def table(rows, markdown):
    """Rows of text, the first of them the headings."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    if not markdown:
        return "\n".join("  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths))) for row in rows)
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0])] + lines[1:])


def tell(figures, markdown):
    """Figures, and tap-rs's ratios to `direct` and to the best peer."""
    present = [m for m in MEASURES if any(m[0] in f for f in figures.values())]
    rows = [[""] + [f"{heading}, {unit}" for _, heading, unit, *_ in present]]
    rows += [[name] + [form.format(f[key]) if key in f else "–" for key, _, _, form, _ in present] for name, f in figures.items()]
    ours = figures.get("tap-rs", {})
    for title, other in (("tap-rs to direct", lambda key, how: "direct"), ("tap-rs to the best peer", lambda key, how: fastest(figures, key, how))):
        cells = [title]
        for key, *_, how in present:
            base = other(key, how)
            known = base in figures and key in figures[base] and key in ours and figures[base][key]
            named = f" ({base})" if known and base != "direct" else ""
            cells.append(f"{ours[key] / figures[base][key]:.2f}×{named}" if known else "–")
        if any(c != "–" for c in cells[1:]):
            rows.append(cells)
    return table(rows, markdown)


def tell_conditions(figures, markdown):
    """Figures, and beside each its ratio to what it is held against."""
    keys = [m for m in MEASURES if any(m[0] in f for f in figures.values())]
    rows = [["tap-rs", *(f"{heading}, {unit}" for _, heading, unit, *_ in keys), "beside"]]
    for name, _, base in CONDITIONS:
        cell = lambda key, form: form.format(figures[name][key]) if key in figures[name] else "–"
        ratio = lambda key: f" ({figures[name][key] / figures[base][key]:.2f}×)" if base and figures[name].get(key) and figures[base].get(key) else ""
        rows.append([name, *(cell(key, form) + ratio(key) for key, _, _, form, _ in keys), base or "–"])
    return table(rows, markdown)


def tell_scale(rows, what, markdown):
    """Totals and memory. Growth is from the fewest on; each client is a process of its own, so that only the server's has any."""
    one = what[:-1]
    out = [[what, "total, Gbit/s", "of the first", "direct with as many streams", "of the first", "CPU per GB, s", "the server's", "server, MB", f"kB for one {one} more", "a client, MB", f"kB for one {one} more"]]
    first = rows[min(rows)] if rows else {}
    for count, r in rows.items():
        growth = [f"{r[f'{side}_growth_kB']:.1f}" if r.get(f"{side}_growth_kB") else "–" for side in ("server", "client")]
        out.append([str(count), f"{r['total']:.2f}", f"{r['total'] / first['total']:.2f}", f"{r['direct']:.2f}", f"{r['direct'] / first['direct']:.2f}",
                    f"{r['cpu']:.2f}", f"{r['server_cpu']:.2f}", f"{r['server_kB'] / 1024:.1f}", growth[0], f"{r['client_kB'] / 1024:.1f}", growth[1]])
    return table([row[:-1] for row in out] if one == "client" else out, markdown)


def stages(markdown):
    """The stage benchmarks' medians, by size."""
    done = subprocess.run(["cargo", "bench", "--bench", "stages"], cwd=REPO, text=True, capture_output=True, timeout=1800)
    if done.returncode:
        raise RuntimeError(done.stderr)
    sized, single, stage = collections.defaultdict(dict), {}, ""
    for line in done.stdout.splitlines():
        # "│  ├─ 64    12.1 ns  │ 20 ns  │ 12.4 ns  │ …": name, fastest and slowest, median
        found = re.match(r"[│├╰─ ]*([\w]+)\s+[\d.]+ \S+\s+│ [\d.]+ \S+\s+│ ([\d.]+ \S+)", line)
        name = re.match(r"[│├╰─ ]*(\w+)", line)
        if found and found[1].isdigit():
            sized[stage][found[1]] = found[2]
        elif found:
            single[found[1]] = found[2]
        elif name:
            stage = name[1]
    order = ["read", "check", "pack", "seal", "seal_chacha", "send", "recv", "open", "open_chacha", "unpack", "write"]
    sizes = sorted({size for row in sized.values() for size in row}, key=int)
    rows = [["stage"] + [f"{size} bytes" for size in sizes]]
    rows += [[stage] + [sized[stage].get(size, "–") for size in sizes] for stage in order if stage in sized]
    single = [["a server's handshakes", "each"]] + [[name.replace("_", " "), value] for name, value in single.items()]
    return table(rows, markdown), table(single, markdown)


def svg(figures, conditions):
    """Bars of one stream up and down, for each peer."""
    names = sorted((n for n in figures if "up" in figures[n]), key=lambda n: -figures[n]["up"])
    most = max([figures[n][k] for n in names for k in ("up", "down") if k in figures[n]] or [1])
    width, left, row, top = 760, 130, 44, 60
    height = top + row * len(names) + 34
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">',
           f'<rect width="{width}" height="{height}" fill="#fff"/>',
           '<text x="16" y="24" font-size="16">One TCP stream through the tunnel, Gbit/s</text>',
           f'<text x="16" y="44" fill="#555">{conditions}</text>']
    for i, name in enumerate(names):
        y = top + i * row
        colour = {"tap-rs": ("#0b6", "#5d9"), "direct": ("#777", "#aaa"), "vxlan": ("#777", "#aaa")}.get(name, ("#36b", "#8ac"))
        out.append(f'<text x="{left - 10}" y="{y + 22}" text-anchor="end">{name}</text>')
        for j, key in enumerate(("up", "down")):
            value = figures[name].get(key)
            if value is not None:
                bar = max(1, value / most * (width - left - 130))
                out.append(f'<rect x="{left}" y="{y + 3 + 16 * j}" width="{bar:.1f}" height="14" fill="{colour[j]}"/>')
                out.append(f'<text x="{left + bar + 6:.1f}" y="{y + 14 + 16 * j}" font-size="11" fill="#333">{value:.2f} {key}</text>')
    out.append(f'<text x="16" y="{height - 12}" fill="#555" font-size="11">Medians; load, both ends and the kernel on the same machine. '
               'Grey: no tunnel, or no encryption.</text>')
    return "\n".join(out + ["</svg>\n"])


def machine():
    with open("/proc/cpuinfo") as file:
        model = re.search(r"model name\s*: (.*)", file.read())
    return f"{os.cpu_count()} cores ({model[1] if model else os.uname().machine}), Linux {os.uname().release}"


# ---- main ---------------------------------------------------------------------------------------------------------------

def counts(text):
    return [int(n) for n in text.split(",")]


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--only", type=lambda s: s.split(","), help="these peers, in this order")
    p.add_argument("--list", action="store_true", help="say which peers can run here")
    p.add_argument("--seconds", type=float, default=4, help="how long each load counts (4)")
    p.add_argument("--rounds", type=int, default=5, help="how often each peer is measured (5)")
    p.add_argument("--measures", type=lambda s: s.split(","), default=["up", "down", "four", "small", "rtt"], help="some of up,down,four,small,rtt")
    p.add_argument("--rtt-under-load", action="store_true", help="also ping every 5 ms while one stream runs")
    p.add_argument("--mtu", type=int, default=1500, help="of the LAN (1500)")
    p.add_argument("--path-mtu", type=int, default=0, help="a router on the way, and a link of this MTU behind it")
    p.add_argument("--no-uso", action="store_true", help="every datagram on its own on the underlay")
    p.add_argument("--loss", type=float, default=0, help="percent of the underlay's UDP datagrams lost, each way; direct has none; implies --no-uso")
    p.add_argument("--suite", choices=("aes", "chacha"), default="aes", help="tap-rs's cipher")
    p.add_argument("--conditions", action="store_true", help="tap-rs under each of these conditions, beside itself without")
    p.add_argument("--streams", type=int, help="TCP streams in all, for --nics and --clients (one a NIC)")
    p.add_argument("--nics", type=counts, help="tap-rs with so many NICs, as 1,10,100")
    p.add_argument("--clients", type=counts, help="tap-rs with so many clients of one NIC each")
    p.add_argument("--all-figures", action="store_true", help="all of docs/PERFORMANCE.md")
    p.add_argument("--markdown", action="store_true", help="tables for a page")
    p.add_argument("--json", help="write the figures there")
    p.add_argument("--svg", help="draw the streams there")
    p.add_argument("--limit", type=int, default=3 * 3600, help="seconds after which the run ends, whatever it is at")
    return p.parse_args()


def main():
    options = parse()
    if options.list:
        for name in PEERS:
            print(f"{name:14} {'not here: ' + missing(name) if missing(name) else PEERS[name].start.__doc__ or ''}")
        return
    if os.geteuid():
        sys.exit("Namespaces need root: sudo benches/peers.py")
    if missing("tap-rs"):
        sys.exit("There is no target/release/tap-rs: cargo build --release")
    left_out = {n: missing(n) for n in options.only or PEERS if missing(n)}
    for name, why in left_out.items():
        print(f"{name} is left out: no {why}", file=sys.stderr)
    options.only = [n for n in options.only or PEERS if n not in left_out]
    if options.path_mtu:
        options.only = [n for n in options.only if n not in NOT_TUNNELS]
    options.no_uso = options.no_uso or options.loss > 0

    def out_of_time(*_):
        raise SystemExit(f"stopped after {options.limit} s, or by a signal")

    for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, out_of_time)
    signal.alarm(options.limit)
    figures = all_figures(options) if options.all_figures else some_figures(options)
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"machine": machine(), "options": vars(options), "figures": figures}, file, indent=1)
    if not figures.get("peers", {"tap-rs": True}).get("tap-rs", "tap-rs" not in options.only):
        sys.exit("tap-rs could not be measured")


def some_figures(options):
    md, out = options.markdown, {}
    if options.conditions:
        out["conditions"] = conditions(options)
        print(tell_conditions(out["conditions"], md))
    for what, of_clients in (("nics", False), ("clients", True)):
        if getattr(options, what):
            out[what] = scale(options, getattr(options, what), of_clients)
            print(tell_scale(out[what], what.replace("nics", "NICs"), md))
    if not out:
        out["peers"] = peers(options)
        print(f"LAN MTU {options.mtu}, {options.rounds} rounds of {options.seconds:g} s, medians; {machine()}\n")
        print(tell(out["peers"], md))
        draw(options, out["peers"])
    return out


def draw(options, figures):
    if options.svg:
        conditions = f"LAN MTU {options.mtu}, underlay MTU 1500, {options.rounds} rounds of {options.seconds:g} s; {os.cpu_count()} cores"
        with open(options.svg, "w") as file:
            file.write(svg(figures, conditions))


def all_figures(options):
    """The tables of docs/PERFORMANCE.md, one after another."""
    md, out = options.markdown, {}
    rates = ["up", "down", "four"]
    print(f"{machine()}. {options.rounds} rounds of {options.seconds:g} s, medians.\n", flush=True)

    def section(key, title, figures, told):
        out[key] = figures
        print(f"{title}\n\n{told}\n", flush=True)

    def among_peers(key, title, changed):
        section(key, title, figures := peers(changed), tell(figures, md))
        return figures

    draw(options, among_peers("peers", "### Beside the others", with_(options, rtt_under_load=True)))
    among_peers("no_uso", "### Every datagram on its own (`--no-uso`)", with_(options, no_uso=True, measures=rates))
    among_peers("loss", "### 1 % of the datagrams lost each way (`--loss 1`)", with_(options, loss=1, no_uso=True, measures=rates))
    figures = conditions(with_(options, measures=rates))
    section("conditions", "### Under other conditions (`--conditions`)", figures, tell_conditions(figures, md))
    for what, name, numbers, of_clients in (("nics", "NICs", [1, 10, 100, 500], False), ("clients", "clients", [1, 10, 100], True)):
        for streams in (None, max(numbers)):
            rows = scale(with_(options, rounds=min(3, options.rounds), streams=streams), numbers, of_clients)
            command = f"--{what} {','.join(map(str, numbers))}" + (f" --streams {streams}" if streams else "")
            section(f"{what}_{streams or 'each'}", f"### More {name} (`{command}`)", rows, tell_scale(rows, name, md))
    by_stage, handshakes = stages(md)
    section("stages", "### Stages", by_stage, f"{by_stage}\n\n{handshakes}")
    return out


if __name__ == "__main__":
    # The load is this file, too.
    match sys.argv[1:]:
        case ["sink-tcp", connections, seconds]:
            sink_tcp(int(connections), float(seconds))
        case ["source-tcp", seconds, *addresses]:
            with contextlib.suppress(ConnectionError):
                source_tcp(addresses, float(seconds))
        case ["sink-udp", seconds]:
            sink_udp(float(seconds))
        case ["source-udp", address, length, seconds]:
            source_udp(address, int(length), float(seconds))
        case _:
            main()
