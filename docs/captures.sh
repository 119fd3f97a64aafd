#!/usr/bin/env bash
# Makes the terminal captures in docs/captures from the real program: a LAN, a client and a server in namespaces of
# their own, traffic through them, and each command on a terminal of 80 columns. As root; needs iproute2, iputils-ping, tmux.
#
#   docs/captures.sh [PROGRAM]        default: target/release/tap-rs
set -euo pipefail
cd "$(dirname "$0")/.."
program=$(realpath "${1:-target/release/tap-rs}")
work=$(mktemp -d)
id=$$
lan=tapcap-$id-lan client=tapcap-$id-client server=tapcap-$id-server
jobs_started=()

clean() {
    tmux -S "$work/tmux" kill-server 2>/dev/null || true
    for pid in "${jobs_started[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    for ns in $lan $client $server; do ip netns del "$ns" 2>/dev/null || true; done
    rm -rf "$work"
}
trap clean EXIT

in_ns() { local ns=$1; shift; ip netns exec "$ns" "$@"; }

for ns in $lan $client $server; do
    ip netns add "$ns"
    in_ns "$ns" ip link set lo up
done
ip -n $lan link add eth0 type veth peer name lan0 netns $client
ip -n $client link add wan0 type veth peer name wan0 netns $server
ip -n $lan addr add 18.8.80.2/24 dev eth0
ip -n $client addr add 192.0.2.7/24 dev wan0
ip -n $server addr add 192.0.2.1/24 dev wan0
for link in "$lan eth0" "$client lan0" "$client wan0" "$server wan0"; do
    # shellcheck disable=SC2086
    set -- $link
    ip -n "$1" link set "$2" up
done

"$program" keygen --out "$work/server.key" >"$work/server.pub"
"$program" keygen --out "$work/client.key" >"$work/client.pub"
{
    cat <<TOML
run_mode = "server"
tap_mode = "tap"
private_key = "server.key"
[server]
bind_addr = "192.0.2.1:1234"
[[clients]]
name = "branch"
public_key = "$(cat "$work/client.pub")"
TOML
    for n in 0 1 2; do
        cat <<TOML
[[nics]]
ifname = "decoy$n"
client_ifname = "decoy$n"
client_parent = "lan0"
ip = "18.8.80.15$n/24"
mac = "be:17:dd:5c:07:1$n"
broadcast_pps = $((20 + 100 * n))
TOML
    done
} >"$work/office.toml"
cat >"$work/branch.toml" <<TOML
run_mode = "client"
use_remote_config = true
parent = "lan0"
private_key = "client.key"
[server]
bind_addr = "192.0.2.1:1234"
public_key = "$(cat "$work/server.pub")"
TOML

# Without a shell between, so that the number is the program's own.
ip netns exec $server "$program" -c "$work/office.toml" 2>"$work/server.log" & jobs_started+=($!)
ip netns exec $client "$program" -c "$work/branch.toml" 2>"$work/client.log" & jobs_started+=($!)
# Keeps tmux while no capture is being made.
tmux -S "$work/tmux" -f /dev/null new-session -d -s keep "sleep 600"
for n in 0 1 2; do
    for _ in $(seq 100); do in_ns $lan ping -q -c 1 -W 1 "18.8.80.15$n" >/dev/null 2>&1 && break; done
done
# Traffic that goes up and down, and frames that must not pass.
(while [ -d "$work" ]; do
    for size in 200 900 1400 400; do
        in_ns $lan ping -q -i 0.002 -c 700 -s $size 18.8.80.150 >/dev/null 2>&1 || true
        in_ns $lan ping -q -i 0.01 -c 100 -s 1400 18.8.80.151 >/dev/null 2>&1 || true
    done
done) & jobs_started+=($!)
(while [ -d "$work" ]; do in_ns $lan ping -q -b -i 0.002 -c 500 18.8.80.255 >/dev/null 2>&1 || true; done) & jobs_started+=($!)

# Runs a command on a terminal and keeps what it shows: FILE COLUMNS ROWS SECONDS KEYS COMMAND…
capture() {
    local file=$1 columns=$2 rows=$3 seconds=$4 keys=$5
    shift 5
    local tmux=(tmux -S "$work/tmux")
    "${tmux[@]}" new-session -d -x "$columns" -y "$rows" -s shot \
        "LC_ALL=C.UTF-8 TERM=screen-256color $*; sleep 60"
    sleep "$seconds"
    for key in $keys; do "${tmux[@]}" send-keys -t shot "$key"; sleep 1; done
    "${tmux[@]}" capture-pane -t shot -p | sed -e 's/[[:space:]]*$//' -e :a -e '/^\n*$/{$d;N;ba' -e '}' >"$file"
    "${tmux[@]}" kill-session -t shot
}

tap() { echo "ip netns exec $server $program $*"; }
capture docs/captures/top.txt 80 24 25 "" "$(tap top office)"
capture docs/captures/top-nic.txt 80 24 12 "Enter" "$(tap top office)"
capture docs/captures/top-peers.txt 80 24 5 "p" "$(tap top office)"
capture docs/captures/status.txt 80 40 1 "" "$(tap status office)"
capture docs/captures/doctor.txt 80 60 8 "" "$(tap doctor office)"

# A config of the original, as its README had it.
cat >"$work/client.toml" <<'TOML'
#is_daemon = true #可选 是否守护进程，默认false
tap_mode = "macvtap" #tap or macvtap
run_mode = "client"
timeout = 120

[server]
bind_addr = "192.168.1.100:1234" #服务器ip地址+端口

[[nics]]
ifname = "tap0"
ip = "18.8.80.150"
mac =  "be:17:dd:5c:07:17"
TOML
capture docs/captures/migrate.txt 80 60 1 "" \
    "cd $work && $program migrate client.toml -o new.toml --keys . --parent eth0 && echo && cat new.toml"

# The config's own folder is a temporary one.
sed -i -e "s|$work|/etc/tap-rs|" docs/captures/*.txt

# The READMEs show parts of some: FILE, and a command that gives the part.
embed() {
    local file=docs/captures/$1.txt readme
    shift
    "$@" "$file" >"$work/part"
    for readme in README.md README.zh-CN.md; do
        awk -v marker="<!-- $file -->" -v part="$work/part" '
            $0 == marker { found = 1 }
            !inside
            found && /^```text/ {
                while ((getline line < part) > 0) print line
                inside = 1
                next
            }
            inside && /^```/ { print; inside = found = 0 }
        ' "$readme" >"$work/readme"
        cat "$work/readme" >"$readme"
    done
}
embed top head -n 5
embed doctor tail -n 8
