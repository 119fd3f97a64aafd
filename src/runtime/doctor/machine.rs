//! This box: who may do what here, what its kernel has, and its clock.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::finding::Findings;
use super::subject::Subject;
use crate::commands::Failure;
use crate::sys::features;
use crate::sys::privileges::CAP_NET_ADMIN;
use crate::sys::process::is_root;
use crate::types::NicMode;

/// Looks at all of it.
pub fn examine(subject: &Subject, findings: &mut Findings) -> Result<(), Failure> {
    root(findings)?;
    kernel(subject, findings)?;
    clock(findings)
}

fn root(findings: &mut Findings) -> Result<(), Failure> {
    if !is_root() {
        return findings.broken(
            "root",
            "you are not root, who alone may make network interfaces; not everything can be examined",
            "run `sudo tap-rs doctor`",
        );
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|l| l.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    match effective {
        Some(bits) if bits >> CAP_NET_ADMIN & 1 == 0 => findings.broken(
            "root",
            "this root may not make network interfaces (no CAP_NET_ADMIN), as in a container without privileges",
            "start the container with `--cap-add NET_ADMIN --device /dev/net/tun`",
        ),
        _ => findings.ok("root", "root, with the right to make network interfaces"),
    }
}

fn kernel(subject: &Subject, findings: &mut Findings) -> Result<(), Failure> {
    let before = findings.worst();
    tun(findings)?;
    let wants_macvtap = subject.nics().iter().any(|nic| nic.mode == NicMode::Macvtap);
    if wants_macvtap && !has_macvtap() {
        findings.warn(
            "kernel",
            "macvtap is not to be found in this kernel",
            "try `modprobe macvtap`, or use tap_mode = \"tap\" with a bridge",
        )?;
    }
    if let Err(e) = features::landlock() {
        findings.note(
            "kernel",
            format!("no landlock ({e}): tap-rs runs, and may open every file that root may"),
            "boot with `lsm=landlock,…`, or a kernel from 5.13 on",
        )?;
    }
    if !Path::new("/proc/sys/kernel/seccomp/actions_avail").exists() {
        findings.note(
            "kernel",
            "no seccomp: tap-rs runs, and may make every system call",
            "use a kernel with CONFIG_SECCOMP_FILTER",
        )?;
    }
    let (gso, gro) = UdpSocket::bind("127.0.0.1:0").map_or((true, true), |s| features::udp_trains(&s));
    if !gso || !gro {
        findings.note(
            "kernel",
            "UDP segmentation offload is missing: everything works, slower",
            "use a kernel from 5.0 on",
        )?;
    }
    if findings.worst() == before {
        let macvtap = if wants_macvtap { ", macvtap" } else { "" };
        findings.ok("kernel", format!("tun{macvtap}, landlock, seccomp, UDP GSO and GRO"))?;
    }
    Ok(())
}

fn tun(findings: &mut Findings) -> Result<(), Failure> {
    let path = "/dev/net/tun";
    match OpenOptions::new().read(true).write(true).open(path) {
        Ok(tun) => match features::tun_flags(&tun) {
            Ok(flags) if flags & libc::IFF_VNET_HDR as u32 == 0 => findings.broken(
                "kernel",
                "this kernel's tun has no vnet headers, which tap-rs reads and writes",
                "use a kernel from 2.6.27 on",
            ),
            Ok(_) => Ok(()),
            Err(e) => findings.broken(
                "kernel",
                format!("{path} is not the tun device: {e}"),
                "`rm /dev/net/tun && mknod /dev/net/tun c 10 200`",
            ),
        },
        Err(e) if e.kind() == ErrorKind::NotFound => findings.broken(
            "kernel",
            format!("{path} is missing"),
            "`modprobe tun`; in a container add `--device /dev/net/tun`",
        ),
        Err(e) if e.kind() == ErrorKind::PermissionDenied && !is_root() => Ok(()),
        Err(e) => findings.broken(
            "kernel",
            format!("{path} cannot be opened: {e}"),
            "`modprobe tun`; in a container add `--device /dev/net/tun`",
        ),
    }
}

/// In the kernel, or in a module that is loaded when it is wanted.
fn has_macvtap() -> bool {
    let has = |path: &str| fs::read_to_string(path).is_ok_and(|text| text.contains("macvtap"));
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let modules = format!("/lib/modules/{}/modules", release.trim());
    has("/proc/devices") || ["builtin", "dep"].iter().any(|list| has(&format!("{modules}.{list}")))
}

fn clock(findings: &mut Findings) -> Result<(), Failure> {
    judge(SystemTime::now(), features::clock_is_kept(), findings)
}

/// 2025-01-01: this program is younger.
const BORN: Duration = Duration::from_secs(1_735_689_600);

/// 2100-01-01.
const FAR: Duration = Duration::from_secs(4_102_444_800);

fn judge(now: SystemTime, kept: Option<bool>, findings: &mut Findings) -> Result<(), Failure> {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mend =
        "set it, and have it kept: `timedatectl set-ntp true`, or `chronyd -q 'pool pool.ntp.org iburst'`";
    if !(BORN..FAR).contains(&since) {
        // Years of the Gregorian calendar, on average.
        let year = 1970u64.saturating_add(since.as_secs() / 31_556_952);
        let what = format!(
            "the clock says it is the year {year}: the tunnel does not mind, but invitations expire wrongly, and the times of logs and captures are useless"
        );
        return findings.warn("clock", what, mend);
    }
    match kept {
        Some(false) => findings.note("clock", "nothing keeps the clock right", mend),
        _ => findings.ok("clock", "plausible, and kept right"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;

    fn severity(at: SystemTime, kept: Option<bool>) -> Severity {
        let mut findings = Findings::new(true, false);
        judge(at, kept, &mut findings).unwrap();
        findings.worst()
    }

    #[test]
    fn a_clock_that_is_wrong_is_said_with_what_sets_it() {
        let epoch = SystemTime::UNIX_EPOCH;
        for wild in [epoch, epoch + Duration::from_secs(86_400), epoch + FAR, epoch - Duration::from_secs(1)]
        {
            assert_eq!(severity(wild, Some(true)), Severity::Warning, "{wild:?}");
        }
        assert_eq!(severity(epoch + BORN, Some(false)), Severity::Note);
        assert_eq!(severity(epoch + BORN, Some(true)), Severity::Ok);
    }
}
