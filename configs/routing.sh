#!/bin/sh
# Policy routing for several NICs in one subnet, by hand: one routing table for each NIC, so that what comes in
# by a NIC is answered by the same one. With routing = "auto", the default, tap-rs does this itself for addresses with a
# prefix length; this is for routing = "none", and for bare addresses as in the original. Run it on the server, as
# root, after each start of tap-rs: the routes go with the taps.
#
#   configs/routing.sh add        configs/routing.sh del
set -eu

gateway=18.8.80.1
subnet=18.8.80.0/24

# interface address table
nics="
tap0 18.8.80.150 150
tap1 18.8.80.151 151
"

action=${1:-add}
case $action in
add | del) ;;
*)
    echo "usage: $0 [add|del]" >&2
    exit 2
    ;;
esac

echo "$nics" | while read -r nic address table; do
    [ -n "$nic" ] || continue
    if [ "$action" = add ]; then
        ip route replace "$subnet" dev "$nic" src "$address" table "$table"
        ip route replace default via "$gateway" dev "$nic" table "$table"
        # A rule can stand there twice, so that a second run would need a second `del`.
        ip rule del from "$address" table "$table" 2>/dev/null || true
        ip rule add from "$address" table "$table"
    else
        ip rule del from "$address" table "$table" || true
        ip route flush table "$table" || true
    fi
done
