#!/usr/bin/env bash
# Shows that a static tap-rs needs nothing around it: `packaging/check-static.sh PROGRAM BUDGET`, as root. It is within
# so many bytes, has no interpreter and no libraries, makes keys and checks a config in a folder where nothing else is, and
# does not pass over what it cannot do.
set -euo pipefail
program=$1 budget=$2

size=$(stat -c %s "$program")
echo "$program: $size bytes; budget $budget"
[ "$size" -le "$budget" ]
if readelf --program-headers --dynamic "$program" | grep -E 'INTERP|NEEDED'; then
    echo "$program is not static" >&2
    exit 1
fi

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
cp "$program" "$root/tap-rs"
inside() { chroot "$root" /tap-rs "$@"; }
inside --version
inside keygen --out /client.key >/dev/null
server_key=$(inside keygen --out /server.key)
cat >"$root/client.toml" <<EOF
run_mode = "client"
private_key = "client.key"
[server]
bind_addr = "192.0.2.1:1234"
public_key = "$server_key"
[[nics]]
ifname = "mv0"
parent = "eth0"
ip = "10.0.0.150/24"
mac = "be:17:dd:5c:07:17"
EOF
inside check -c /client.toml
# What it leaves out it refuses, at its place.
sed -i '1i metrics = 9095' "$root/client.toml"
if ! said=$(inside check -c /client.toml 2>&1); then
    grep -F '/client.toml:1:11: `metrics`: this is the tiny flavour' <<<"$said"
fi
