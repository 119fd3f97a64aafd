#!/bin/sh
# An example of a script that a server pushes (script_path) and a client runs before its NICs are made.
# Its exit status other than 0 ends the client with that status.
set -eu

# The client box itself answers only for its own addresses, and only where they are.
sysctl -q -w net.ipv4.conf.all.arp_ignore=1
sysctl -q -w net.ipv4.conf.all.arp_announce=2
