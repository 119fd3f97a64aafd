#!/usr/bin/env bash
# Builds a fully static tap-rs: `packaging/static.sh [full|tiny]`. Prints the path of the program.
#
# Where rustup has the musl target (`rustup target add x86_64-unknown-linux-musl`) that is used. Elsewhere, on Debian,
# the standard library is built from Debian's source, for size, with the compiler that belongs to it: its packages are
# unpacked below target/, and nothing is installed but musl-tools.
set -euo pipefail
cd "$(dirname "$0")/.."

flavour=${1:-full}
target=$(uname -m)-unknown-linux-musl
flags=(-C force-unwind-tables=no -Z unstable-options)
case $flavour in
full) options=(--profile small) built=small ;;
tiny)
    options=(--profile tiny --no-default-features --features tiny) built=tiny
    # No messages for bugs, no relocations, no second way to multiply points or to hash, and equal functions and equal
    # stretches of code only once.
    flags+=(-C panic=immediate-abort -Z location-detail=none -C relocation-model=static
        --cfg 'curve25519_dalek_backend="serial"' --cfg 'sha2_backend="soft"' --cfg 'sha2_backend_soft="compact"'
        -C llvm-args=-enable-machine-outliner=always -C llvm-args=-machine-outliner-reruns=2
        -C link-arg=-fuse-ld=gold -C link-arg=-Wl,--icf=all)
    ;;
*) echo "usage: $0 [full|tiny]" >&2; exit 2 ;;
esac

if ! command -v musl-gcc >/dev/null; then
    echo "installing musl-tools" >&2
    apt-get install -y -q --no-install-recommends musl-tools >&2
fi
export "CC_${target//-/_}=musl-gcc"

have_target() { [ -d "$(rustc --print sysroot)/lib/rustlib/$target/lib" ]; }

# Debian's compiler for its own browsers, newer than its release: rustc, its libraries, and the source of `std`.
toolchain() {
    local root=$PWD/target/toolchain packages llvm crt
    if [ ! -e "$root/complete" ]; then
        rm -rf "$root" && mkdir -p "$root/packages"
        packages="rustc-web rust-web-src libstd-rust-web-dev"
        apt-cache show rustc-web >/dev/null 2>&1 || apt-get update -q >&2
        std=$(apt-cache depends libstd-rust-web-dev | awk '$1 == "Depends:" && /libstd-rust-web/ { print $2; exit }')
        llvm=$(apt-cache depends "$std" | awk '$1 == "Depends:" && /libllvm/ { print $2; exit }')
        # apt's own user may write there.
        chmod 755 "$root" "$root/packages"
        (cd "$root/packages" && apt-get download -q $packages "$std" "$llvm" >&2)
        for package in "$root"/packages/*.deb; do dpkg -x "$package" "$root"; done
        rm -r "$root/packages"
        # What a musl target of rustup's brings along.
        crt=$root/usr/lib/rustlib/$target/lib/self-contained
        mkdir -p "$crt"
        for object in crt1.o rcrt1.o Scrt1.o crti.o crtn.o libc.a; do
            cp "/usr/lib/$(uname -m)-linux-musl/$object" "$crt/"
        done
        for object in crtbegin.o crtbeginS.o crtend.o crtendS.o; do
            cp "$(gcc -print-file-name=$object)" "$crt/"
        done
        # A program that aborts has no stack to unwind: a panic says where it happened, and not how it came there.
        {
            echo 'int _Unwind_Backtrace(void *f, void *a) { return 5; }'
            for function in GetIP GetIPInfo GetRegionStart GetLanguageSpecificData GetTextRelBase GetDataRelBase SetGR SetIP; do
                echo "unsigned long _Unwind_$function(void *c) { return 0; }"
            done
        } | musl-gcc -Os -ffunction-sections -x c -c -o "$crt/unwind.o" -
        ar rcs "$crt/libunwind.a" "$crt/unwind.o"
        touch "$root/complete"
    fi
    echo "$root"
}

if have_target; then
    cargo build --locked --target "$target" "${options[@]}" >&2
else
    root=$(toolchain)
    # A thread names itself, which is one system call; musl's function can name others as well, and has all of printf for it.
    names=$PWD/target/names.o
    musl-gcc -Os -fPIC -x c -c -o "$names" - <<'EOF'
#include <errno.h>
#include <pthread.h>
#include <sys/prctl.h>
int pthread_setname_np(pthread_t self, const char *name) {
    (void)self;
    return prctl(PR_SET_NAME, (unsigned long)name, 0UL, 0UL, 0UL) ? errno : 0;
}
EOF
    flags+=(-Z "pre-link-arg=$names")
    LD_LIBRARY_PATH=$root/usr/lib/$(uname -m)-linux-gnu RUSTC=$root/usr/bin/rustc RUSTC_BOOTSTRAP=1 \
        CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f' && echo "${flags[*]}") \
        cargo build --locked --target "$target" "${options[@]}" \
        -Z build-std=std,panic_abort -Z build-std-features=optimize_for_size >&2
fi
echo "target/$target/$built/tap-rs"
