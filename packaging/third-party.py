#!/usr/bin/env python3
"""Writes the notices of everything that is linked into the static program: `packaging/third-party.py >FILE`.

The crates that cargo links for this target (not what only runs while building), each with the notices and the licence
texts that it brings; musl's; and those of Rust's standard library. A crate without any ends it.
`packaging/third-party.py --check FILE` says which of them are missing in FILE.

Of a choice of licences that has the Apache License 2.0 in it, the other one is taken: it is shorter, and its notice names
people. Texts that several have stand there once.
"""

import argparse
import html
import json
import platform
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = f"{platform.machine()}-unknown-linux-musl"
# What Debian's musl-tools brings along.
MUSL = Path("/usr/share/doc/musl/copyright")
# Rust's standard library where packaging/static.sh builds it: Debian's source of it has no notices. All under MIT, or
# a choice that has MIT in it.
STANDARD_LIBRARY = {
    "Rust's standard library (MIT OR Apache-2.0)": "Copyright (c) The Rust Project Contributors",
    "compiler_builtins and libm, of Rust's standard library (MIT AND Apache-2.0 WITH LLVM-exception)":
        """Copyright (c) 2009-2016 by the contributors listed in CREDITS.TXT of LLVM's compiler-rt
Copyright (c) the compiler-builtins Developers
Copyright (c) 2018 Jorge Aparicio
Copyright (c) 2005-2020 Rich Felker, et al.""",
    "addr2line, of Rust's standard library": "Copyright (c) 2016-2018 The gimli Developers",
    "adler2, of Rust's standard library": "Copyright (C) Jonas Schievink <jonasschievink@gmail.com>",
    "cfg-if, of Rust's standard library": "Copyright (c) 2014 Alex Crichton",
    "gimli, of Rust's standard library": "Copyright (c) 2015 The Rust Project Developers",
    "hashbrown, of Rust's standard library": "Copyright (c) 2016 Amanieu d'Antras",
    "libc, of Rust's standard library": "Copyright (c) The Rust Project Developers",
    "memchr, of Rust's standard library": "Copyright (c) 2015 Andrew Gallant",
    "miniz_oxide, of Rust's standard library": "Copyright (c) 2017 Frommi\nCopyright (c) 2017-2024 oyvindln",
    "object, of Rust's standard library": "Copyright (c) 2015 The Gimli Developers",
    "rustc-demangle, of Rust's standard library": "Copyright (c) 2014 Alex Crichton",
}

NOTICES = re.compile(r"(LICEN[SC]E|COPYING|COPYRIGHT|NOTICE|UNLICENSE)([-._]|$)", re.IGNORECASE)
APACHE = re.compile(r"Apache License\s+Version 2\.0, January 2004")
GRANT = "Permission is hereby granted, free of charge"


def output(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def crates() -> list[tuple[str, str]]:
    """Name and version of each crate that is linked, without ours."""
    tree = output("cargo", "tree", "--locked", "--target", TARGET, "--edges", "normal,no-proc-macro",
                  "--prefix", "none", "--no-dedupe", "--format", "{p}")
    found = {(name, version[1:]) for name, version, *_ in map(str.split, tree.splitlines())}
    return sorted(crate for crate in found if crate[0] != "tap-rs")


def folders() -> dict[tuple[str, str], tuple[Path, str]]:
    """Where each crate's source is, and which licence it names."""
    metadata = json.loads(output("cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", TARGET))
    return {(p["name"], p["version"]): (Path(p["manifest_path"]).parent, p["license"] or "its own licence")
            for p in metadata["packages"]}


def texts(folder: Path, licence: str) -> list[str]:
    """The notices of a crate, and the licences that are not Apache's where it leaves the choice."""
    files = [f for f in (*folder.iterdir(), *folder.glob("src/**/*")) if f.is_file() and NOTICES.match(f.name)]
    found = [f.read_text(encoding="utf-8").strip() for f in sorted(files)]
    others = [text for text in found if not APACHE.match(text)]
    has_choice = " OR " in licence or "/" in licence
    if not found:
        sys.exit(f"{folder} brings no licence text: add it by hand to {Path(__file__).name}")
    return others if has_choice and others else found


class Notices:
    """The document, in which a text that was there before is only named."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.first: dict[str, str] = {}

    def add(self, title: str, found: list[str]) -> None:
        self.lines += ["", "-" * 78, title, "-" * 78]
        for text in found:
            before, grant, body = text.partition(GRANT)
            notice, body = (before.strip(), grant + body) if grant else ("", text)
            key = re.sub(r"\W+", " ", body).strip().lower()
            if notice:
                self.lines += ["", notice]
            if key in self.first:
                self.lines += ["", f"[The text that is at {self.first[key]}, above.]"]
            else:
                self.first[key] = title
                self.lines += ["", body]

    def text(self) -> str:
        return "\n".join(line.rstrip() for line in "\n".join(self.lines).splitlines()).strip() + "\n"


def standard_library(notices: Notices) -> None:
    """What rustup's toolchain says of its own library, where that is the one that is linked."""
    sysroot = Path(output("rustc", "--print", "sysroot").strip())
    if (sysroot / "lib/rustlib" / TARGET / "lib").is_dir():
        page = (sysroot / "share/doc/rust/COPYRIGHT-library.html").read_text(encoding="utf-8")
        page = re.sub(r"<(head|style).*?</\1>", "", page, flags=re.DOTALL)
        lines = [line.strip() for line in html.unescape(re.sub(r"<[^>]*>", "", page)).splitlines()]
        notices.add("Rust's standard library (MIT OR Apache-2.0)", [re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()])
        return
    mit = (ROOT / "LICENSE-MIT").read_text(encoding="utf-8")
    for title, notice in STANDARD_LIBRARY.items():
        notices.add(title, [notice + "\n\n" + mit[mit.index(GRANT):]])


def write() -> None:
    notices = Notices()
    notices.lines = ["What is linked into the program tap-rs, and the notices that come with it. tap-rs itself is under",
                     "the MIT licence or the Apache License 2.0, at your option. All that is offered under several",
                     "licences is used here under one that stands below."]
    where = folders()
    for name, version in crates():
        folder, licence = where[name, version]
        notices.add(f"{name} {version} ({licence})", texts(folder, licence))
    standard_library(notices)
    if not MUSL.exists():
        sys.exit(f"{MUSL} is not there; on Debian: apt install musl-tools")
    notices.add("musl, the C library", [MUSL.read_text(encoding="utf-8").strip()])
    sys.stdout.write(notices.text())


def check(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    wanted = [f"{name} {version} (" for name, version in crates()] + ["Rust's standard library (", "musl, the C library"]
    missing = [title.rstrip(" (") for title in wanted if f"\n{title}" not in text]
    if missing:
        sys.exit(f"{file} has no notices of {', '.join(missing)}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Notices of what is linked into the static program.")
    parser.add_argument("--check", metavar="FILE", type=Path, help="fail where one is missing in FILE")
    options = parser.parse_args()
    if options.check:
        check(options.check)
    else:
        write()


main()
