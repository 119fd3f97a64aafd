#!/usr/bin/env bash
# Builds a Debian package of the static full program: `packaging/deb.sh`. Prints its path. Who packages for others says
# in DEBFULLNAME and DEBEMAIL who that is.
#
# It needs what packaging/static.sh needs, Python, and cargo-deb, which is built below target/ where it is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

target=$(uname -m)-unknown-linux-musl
made=target/package
version=$(cargo pkgid --offline | sed 's/.*[#@]//')-1
maintainer="${DEBFULLNAME:-The tap-rs authors} <${DEBEMAIL:-root@localhost}>"
export PATH=$PWD/target/tools/bin:$PATH

if ! command -v cargo-deb >/dev/null; then
    echo "building cargo-deb below target/tools" >&2
    CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=1 \
        cargo install --locked --quiet --root target/tools --version 3.8.0 cargo-deb \
        --no-default-features --features lzma >&2
fi

packaging/static.sh full >&2
rm -rf "$made" && mkdir -p "$made"
cargo run --quiet --locked --example manual -- "$made" >&2
packaging/third-party.py >"$made/THIRD-PARTY"
# The same source gives the same package. Not before: a change of it would have C code built again.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || date +%s)
export SOURCE_DATE_EPOCH
cat >"$made/changelog" <<EOF
tap-rs ($version) unstable; urgency=medium

  * Built from the source; /usr/share/doc/tap-rs/changelog.gz has its changes.

 -- $maintainer  $(LC_ALL=C date --utc --date="@$SOURCE_DATE_EPOCH" --rfc-email)
EOF
cargo deb --quiet --locked --no-build --no-strip --target "$target" --profile small \
    --maintainer "$maintainer" --deb-version "$version" --output "$made/"
