#!/usr/bin/env bash
# Takes a Debian package through its life in a root file system made for it: `packaging/check-deb.sh DEB`, as root, on
# Debian with mmdebstrap, systemd-container and iputils-ping, and cargo for the README's test.
#
#   a chroot:     README's `apt install`, README's quick start, removal, purge; then what is left is compared
#   two of systemd-nspawn --boot:  tap-rs@server and tap-rs@client: start with keys that systemd hands over, frames through a
#                 macvtap, all killed at once, reload, watchdog, upgrade, removal, purge
#
# The root is made from the machine's own apt sources. All of it is gone at the end, however it ends.
set -Eeuo pipefail
cd "$(dirname "$0")/.."
deb=$(realpath "$1")
[ "$(id -u)" -eq 0 ] || { echo "a root file system is made by root: sudo $0 $1" >&2; exit 1; }
repository=$PWD

work=$(mktemp -d -p /var/tmp tap-rs-deb.XXXXXX)
export TAP_RS_ROOT=$work/root
root=$TAP_RS_ROOT
box=taprs-deb-$$
declare -A nspawn=() first=()
clean_up() {
    # A container ends with its first process.
    for side in "${!nspawn[@]}"; do pkill -KILL -P "${nspawn[$side]}" || true; done
    wait 2>/dev/null || true
    for side in lan client server; do ip netns del "$box-$side" 2>/dev/null || true; done
    # Mounts are in namespaces that ended with what ran there.
    rm -rf --one-file-system "$work"
}
trap clean_up EXIT
trap 'echo "$0: line $LINENO: this does not hold: $BASH_COMMAND" >&2' ERR
trap 'exit 130' INT TERM

say() { echo "-- $*"; }
fail() { echo "$*" >&2; exit 1; }
# Waits until a command succeeds, 30 s at the most.
until_true() {
    for _ in $(seq 150); do
        if "$@" >/dev/null 2>&1; then return; fi
        sleep 0.2
    done
    fail "in vain: $*"
}

say "a root file system"
. /etc/os-release
sources() {
    apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' "Origin: ${ID^}" | sort -u
}
[ -n "$(sources)" ] || apt-get update -q
apt-config dump | grep -E '^Acquire::(http|https|Check-)' >"$work/apt.conf" || true
sources | mmdebstrap --quiet --variant=apt --include=systemd-sysv --aptopt="$work/apt.conf" "$VERSION_CODENAME" "$root" -
mkdir "$root/root/here"
cp "$deb" "$root/root/here/"

# Runs a command in the root, in the same folder where that is below it, with devices and the caller's network.
cat >"$work/inside" <<'EOF'
#!/bin/sh
case $PWD in "$TAP_RS_ROOT"/*) folder=${PWD#"$TAP_RS_ROOT"} ;; *) folder=/ ;; esac
exec unshare --mount --propagation private sh -ec '
    mount --rbind /dev "$TAP_RS_ROOT/dev"
    mount -t proc proc "$TAP_RS_ROOT/proc"
    mount -t sysfs sysfs "$TAP_RS_ROOT/sys"
    exec chroot "$TAP_RS_ROOT" sh -c '\''cd "$1"; shift; exec "$@"'\'' sh "$@"' sh "$folder" "$@"
EOF
chmod +x "$work/inside"
inside() { env LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin:/sbin:/bin "$work/inside" "$@"; }

# All that is there, without what dpkg, apt and a boot write, and without what is in the way of both.
files() {
    local unseen=(-false)
    for path in var/lib/{dpkg,apt,systemd,private} var/{cache,log,tmp} var/.updated etc/.updated etc/machine-id \
        etc/resolv.conf etc/hostname dev root run tmp; do
        unseen+=(-o -path "./$path")
    done
    (cd "$root" && find . -xdev \( "${unseen[@]}" \) -prune -o -printf '%p %y %m %l\n' | sort)
}
files >"$work/before"
same_as_before() {
    files | diff "$work/before" - >"$work/left" || { cat "$work/left"; fail "that is left"; }
}

say "apt install, as the README has it"
line=$(grep -m 1 '^apt install' README.md)
(cd "$root/root/here" && inside sh -c "$line -y -q" >/dev/null 2>&1)
[ "$(stat -c %a "$root/etc/tap-rs")" = 700 ]
inside tap-rs --version
for page in man1/tap-rs.1.gz man1/tap-rs-doctor.1.gz man5/tap-rs.toml.5.gz; do [ -s "$root/usr/share/man/$page" ]; done
[ "$(inside bash -c '. /usr/share/bash-completion/completions/tap-rs; COMP_WORDS=(tap-rs doc) COMP_CWORD=1
    $(complete -p tap-rs | sed "s/.*-F \([^ ]*\) .*/\1/") tap-rs doc tap-rs; echo "${COMPREPLY[@]}"')" = doctor ]
for example in "$root"/usr/share/doc/tap-rs/examples/*.toml; do [ -s "$example" ]; done
packaging/third-party.py --check "$root/usr/share/doc/tap-rs/THIRD-PARTY"

say "systemd on the unit"
inside systemd-analyze verify --man=no tap-rs@server.service
inside systemd-analyze security --offline=true --threshold=25 --no-pager tap-rs@.service | tail -n 1

say "the README's quick start, word for word"
mkdir -p target/package
cat >target/package/inside <<'EOF'
#!/bin/sh
exec "${TAP_RS_ROOT%/root}/inside" /usr/bin/tap-rs "$@"
EOF
chmod +x target/package/inside
TMPDIR=$root/tmp TAP_RS_PROGRAM=$repository/target/package/inside \
    cargo test --quiet --locked --test readme the_quick_start_works_word_for_word

say "configs by name in /etc/tap-rs, removal, purge"
inside tap-rs init --server-only --server 203.0.113.10:1234 --out /etc/tap-rs
inside tap-rs check -c server
inside apt-get remove -y -q tap-rs >/dev/null
[ -s "$root/etc/tap-rs/server.key" ]
[ ! -e "$root/usr/bin/tap-rs" ]
inside apt-get purge -y -q tap-rs >"$work/purge"
grep '^/etc/tap-rs stays' "$work/purge"
files | diff "$work/before" - | grep '^>' | cut -d ' ' -f 2 >"$work/left" || true
diff "$work/left" - <<'EOF'
./etc/tap-rs
./etc/tap-rs/server.key
./etc/tap-rs/server.key.pub
./etc/tap-rs/server.toml
EOF
rm -r "$root/etc/tap-rs"
same_as_before
(cd "$root/root/here" && inside sh -c "$line -y -q" >/dev/null 2>&1)
inside apt-get purge -y -q tap-rs >/dev/null
same_as_before

say "systemd boots the root as the server's box, and a copy of it as the client's"
for side in lan client server; do
    ip netns add "$box-$side"
    ip -n "$box-$side" link set lo up
done
ip -n "$box-lan" link add eth0 type veth peer name eth0 netns "$box-client"
ip -n "$box-client" link add wan0 type veth peer name eth0 netns "$box-server"
connect() { ip -n "$box-$1" addr add "$3/24" dev "$2" && ip -n "$box-$1" link set "$2" up; }
connect lan eth0 192.168.1.2
connect client eth0 192.168.1.20
connect client wan0 203.0.113.20
connect server eth0 203.0.113.10
cp -a --reflink=auto "$root" "$work/client"
declare -A roots=([server]=$root [client]=$work/client)
# No machine manager is needed for it; what it says goes to a file. Started where it is to be, for with
# --network-namespace-path= its /sys shows the interfaces of another place.
boot() {
    nsenter --net="/run/netns/$box-$1" systemd-nspawn --quiet --directory="${roots[$1]}" --boot --register=no --keep-unit \
        --console=pipe --timezone=off --resolv-conf=off --bind=/dev/net/tun --capability=CAP_NET_ADMIN \
        --system-call-filter="landlock_create_ruleset landlock_add_rule landlock_restrict_self" >"$work/console-$1" 2>&1 &
    nspawn[$1]=$!
}
# The container's first process, which nspawn starts.
find_first() { first[$1]=$(pgrep -P "${nspawn[$1]}" | head -n 1) && [ -n "${first[$1]}" ]; }
on() {
    local side=$1
    shift
    nsenter --target "${first[$side]}" --mount --uts --ipc --net --pid --root --wd \
        env PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 "$@"
}
running() { find_first "$1" && on "$1" systemctl is-system-running | grep -qE 'running|degraded'; }
boot server
boot client
for side in server client; do
    for _ in $(seq 300); do
        if running $side 2>/dev/null; then break; fi
        if ! kill -0 "${nspawn[$side]}" 2>/dev/null; then break; fi
        sleep 0.2
    done
    if ! running $side 2>/dev/null; then
        tail -n 20 "$work/console-$side"
        echo "NOT TRIED with systemd: it does not boot in a container on this machine, for the reason above"
        exit 0
    fi
done

property() { on "$1" systemctl show "tap-rs@$1" --property "$2" --value; }
is() { [ "$(property "$1" "$2")" = "$3" ]; }
log() { on "$1" journalctl --no-pager --quiet --boot --unit "tap-rs@$1"; }
# What `systemctl edit` would write.
edit() { # SIDE NAME LINE...
    local folder=${roots[$1]}/etc/systemd/system/tap-rs@$1.service.d
    mkdir -p "$folder"
    printf '%s\n' '[Service]' "${@:3}" >"$folder/$2.conf"
    on "$1" systemctl daemon-reload
}
ping_it() { ip netns exec "$box-lan" ping -q -c 1 -W 1 192.168.1.150; }
install_it() { on "$1" sh -c "cd /root/here && DEBIAN_FRONTEND=noninteractive $line -y -q" 2>&1; }

say "install; a server whose key only this machine can read, and systemd hands over"
install_it server >/dev/null
on server tap-rs init --server-only --server 203.0.113.10:1234 --out /etc/tap-rs >/dev/null
on server mkdir -p /etc/credstore.encrypted
on server systemd-creds encrypt --name=private_key /etc/tap-rs/server.key /etc/credstore.encrypted/tap-rs.server.key 2>/dev/null
if grep -q "$(cat "$root/etc/tap-rs/server.key")" "$root/etc/credstore.encrypted/tap-rs.server.key"; then
    fail "the key is to be read"
fi
on server sh -c 'rm /etc/tap-rs/server.key && sed -i /^private_key/d /etc/tap-rs/server.toml'
edit server credential 'LoadCredentialEncrypted=private_key:tap-rs.server.key'
on server systemctl enable --quiet --now tap-rs@server
is server ActiveState active
is server StatusText "0 of 0 clients have a session"
# What is done by hand finds the key where the service has it.
on server tap-rs check -c server >/dev/null
invite=$(on server tap-rs invite branch -c server \
    --nic ip=192.168.1.150/24,mac=be:17:dd:5c:07:17 2>/dev/null)

say "a client whose key systemd hands over, with a macvtap that was made by hand; frames from its LAN to the service"
install_it client >/dev/null
on client tap-rs join "$invite" --parent eth0 --out /etc/tap-rs >/dev/null
on client sh -c 'install -d -m 700 /etc/credstore && mv /etc/tap-rs/client.key /etc/credstore/tap-rs.client.key &&
    sed -i /^private_key/d /etc/tap-rs/client.toml'
ip -n "$box-client" link add link eth0 name mv0 type macvtap mode bridge
# What devtmpfs does, which is not in a container.
on client sh -c 'mknod /dev/tap$(cat /sys/class/net/mv0/ifindex) c $(cat /sys/class/net/mv0/tap*/dev | tr : " ")'
on client systemctl enable --quiet --now tap-rs@client
until_true ping_it
until_true is server StatusText "1 of 1 clients have a session"
for side in server client; do
    if log $side | grep -E 'this kernel (has no|filters no)'; then
        fail "the unit keeps the program from shutting itself in"
    fi
done

say "all of a client killed at once, its keeper as well: the NIC is down, and up again with the service"
state_of() { ip -n "$box-client" -brief link show "$1" 2>/dev/null | awk '{ print $2 }' || true; }
kill_all() { # SIDE: and wait until systemd has seen it
    on "$1" systemctl kill --signal=KILL "tap-rs@$1"
    until_true is "$1" ActiveState failed
}
edit client once 'Restart=no'
[ "$(state_of mv0)" = UP ]
kill_all client
[ "$(state_of mv0)" = DOWN ]
if ping_it >/dev/null; then fail "somebody answers for a NIC without a client"; fi
on client systemctl start tap-rs@client
until_true ping_it

say "the same with a macvtap that the service makes, with CAP_MKNOD in the place of devtmpfs: it is gone, and made again"
on client systemctl stop tap-rs@client
ip -n "$box-client" link del mv0
edit client container 'CapabilityBoundingSet=CAP_MKNOD'
on client systemctl start tap-rs@client
until_true ping_it
kill_all client
[ -z "$(state_of mv0)" ]
if ping_it >/dev/null; then fail "somebody answers for a NIC without a client"; fi
on client systemctl start tap-rs@client
until_true ping_it

say "the same with the server, which systemd starts again"
on server systemctl kill --signal=KILL tap-rs@server
until_true is server NRestarts 1
until_true is server ActiveState active
until_true ping_it

say "reload"
pid=$(property server MainPID)
on server sed -i '1i mtu = 1400' /etc/tap-rs/server.toml
on server systemctl reload tap-rs@server
until_true eval 'ip -n "$box-server" link show tap0 | grep -q "mtu 1400"'
is server MainPID "$pid"
# The client asks its LAN anew.
until_true ping_it

say "a program that stands still is killed by the watchdog, and started again"
edit server watchdog 'WatchdogSec=2' 'TimeoutAbortSec=1'
on server systemctl restart tap-rs@server
until_true ping_it
restarts=$(property server NRestarts)
on server sh -c "kill -STOP $(property server MainPID)"
until_true eval '[ "$(property server NRestarts)" -gt "$restarts" ] && is server ActiveState active'
log server | grep -q 'Watchdog timeout'
until_true ping_it

say "an upgrade restarts what runs, with the same config and sessions"
dpkg-deb -R "$deb" "$work/newer"
sed -i 's/^Version: .*/&+newer/' "$work/newer/DEBIAN/control"
rm "$root"/root/here/*.deb
dpkg-deb --root-owner-group -b "$work/newer" "$root/root/here/" >/dev/null
pid=$(property server MainPID)
install_it server >/dev/null
[ "$(property server MainPID)" != "$pid" ]
is server ActiveState active
until_true ping_it

say "but not where the new program refuses the config"
pid=$(property server MainPID)
on server sed -i '1i no_such_key = 1' /etc/tap-rs/server.toml
on server sh -c 'apt-get install -y -q --reinstall /root/here/*.deb' >"$work/said" 2>&1
grep -q 'tap-rs@server.service goes on with the program that it was started with' "$work/said"
is server MainPID "$pid"
ping_it >/dev/null
on server sed -i 1d /etc/tap-rs/server.toml

say "removal stops it, purge forgets it"
on server apt-get remove -y -q tap-rs >/dev/null
if is server ActiveState active; then fail "it still runs"; fi
if ip -n "$box-server" link show tap0 >/dev/null 2>&1; then fail "tap0 is still there"; fi
on server apt-get purge -y -q tap-rs >"$work/purge"
grep -q '^/etc/tap-rs stays' "$work/purge"
grep -q '^/etc/systemd/system/tap-rs@server.service.d stays' "$work/purge"
[ ! -e "$root/etc/systemd/system/multi-user.target.wants/tap-rs@server.service" ]
grep -q '^/etc/credstore.encrypted/tap-rs.server.key stays' "$work/purge"
for side in client server; do
    kill -RTMIN+4 "${first[$side]}"
    wait "${nspawn[$side]}" || true
    unset "nspawn[$side]"
done
rm -r "$root/etc/tap-rs" "$root/etc/systemd/system/tap-rs@server.service.d" "$root/etc/credstore.encrypted"
same_as_before
say "all of it works"
