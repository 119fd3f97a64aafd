//! Seccomp: which system calls this process may still make (seccomp(2)), as a small program for the kernel.

use std::io;

use libc::{c_int, c_long, sock_filter};

use super::privileges::call;

/// What becomes of a system call.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// It is made.
    Allow,
    /// It is made if the argument with this number (from 0) is one of these, taken as 32 bits, else refused.
    IfOneOf(u8, Vec<u32>),
    /// It is made unless the argument with this number has any of these bits, else refused.
    Unless(u8, u32),
    /// It ends the process.
    Kill,
}

#[cfg(target_arch = "x86_64")]
const ARCH: Option<u32> = Some(0xc000_003e);
#[cfg(target_arch = "aarch64")]
const ARCH: Option<u32> = Some(0xc000_00b7);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ARCH: Option<u32> = None;

// `struct seccomp_data` (linux/seccomp.h): number, architecture, instruction pointer, six arguments of 64 bits.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;
/// Numbers from here up are those of the x32 ABI.
const X32: u32 = 0x4000_0000;

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
const ANY_BIT: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

const REFUSED: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
const KILLED: u32 = libc::SECCOMP_RET_KILL_PROCESS;
const ALLOWED: u32 = libc::SECCOMP_RET_ALLOW;

/// Holds every thread of this process to these rules, for good. A system call that no rule names gives `EPERM`. The
/// rules are looked at in order. Needs [`super::privileges::gain_nothing_by_exec`] before.
///
/// # Errors
/// `Unsupported` on other processors than x86-64 and ARM64; what the kernel says otherwise.
pub fn filter(rules: &[(c_long, Verdict)]) -> io::Result<()> {
    let arch = ARCH.ok_or(io::ErrorKind::Unsupported)?;
    let program = compile(arch, rules);
    let len = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    const SET_MODE_FILTER: c_int = 1;
    let flags = libc::SECCOMP_FILTER_FLAG_TSYNC;
    // SAFETY: the kernel reads the program, which outlives the call, and writes nothing.
    let done = unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flags, &raw const program) };
    // More than zero: the number of a thread that could not be held.
    if done > 0 { Err(io::Error::other("a thread has rules of its own")) } else { call(done) }
}

fn compile(arch: u32, rules: &[(c_long, Verdict)]) -> Vec<sock_filter> {
    let mut code = vec![op(LOAD, ARCHITECTURE), jump(EQUAL, arch, 1, 0), op(RETURN, KILLED)];
    code.push(op(LOAD, NUMBER));
    if cfg!(target_arch = "x86_64") {
        code.extend([jump(AT_LEAST, X32, 0, 1), op(RETURN, KILLED)]);
    }
    for (number, verdict) in rules {
        let body = body(verdict);
        let skip = u8::try_from(body.len()).unwrap_or(u8::MAX);
        code.push(jump(EQUAL, u32::try_from(*number).unwrap_or(u32::MAX), 0, skip));
        code.extend(body);
    }
    code.push(op(RETURN, REFUSED));
    code
}

fn body(verdict: &Verdict) -> Vec<sock_filter> {
    let argument = |n: u8| op(LOAD, ARGUMENTS.saturating_add(u32::from(n).saturating_mul(8)));
    match verdict {
        Verdict::Allow => vec![op(RETURN, ALLOWED)],
        Verdict::Kill => vec![op(RETURN, KILLED)],
        Verdict::Unless(n, bits) => {
            vec![argument(*n), jump(ANY_BIT, *bits, 0, 1), op(RETURN, REFUSED), op(RETURN, ALLOWED)]
        }
        Verdict::IfOneOf(n, values) => {
            let mut code = vec![argument(*n)];
            for value in values {
                code.extend([jump(EQUAL, *value, 0, 1), op(RETURN, ALLOWED)]);
            }
            code.push(op(RETURN, REFUSED));
            code
        }
    }
}

fn op(code: u32, k: u32) -> sock_filter {
    jump(code, k, 0, 0)
}

fn jump(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel does.
    fn judge(code: &[sock_filter], arch: u32, number: u32, arguments: [u32; 6]) -> u32 {
        let (mut at, mut a) = (0, 0);
        loop {
            let sock_filter { code: what, jt, jf, k } = code[at];
            at += 1;
            let mut branch = |to: bool| at += usize::from(if to { jt } else { jf });
            match u32::from(what) {
                LOAD => {
                    a = match k {
                        NUMBER => number,
                        ARCHITECTURE => arch,
                        k => arguments[(k - ARGUMENTS) as usize / 8],
                    }
                }
                EQUAL => branch(a == k),
                AT_LEAST => branch(a >= k),
                ANY_BIT => branch(a & k != 0),
                RETURN => return k,
                _ => panic!("{what:x}"),
            }
        }
    }

    #[test]
    fn each_rule_gives_its_verdict_and_everything_else_is_refused() {
        let rules = [
            (1, Verdict::Allow),
            (2, Verdict::IfOneOf(1, vec![7, 9])),
            (3, Verdict::Unless(2, 0b100)),
            (4, Verdict::Kill),
        ];
        let code = compile(77, &rules);
        let verdict = |number, arguments| judge(&code, 77, number, arguments);
        assert_eq!(verdict(1, [0; 6]), ALLOWED);
        for (argument, expected) in [(7, ALLOWED), (9, ALLOWED), (8, REFUSED)] {
            assert_eq!(verdict(2, [7, argument, 0, 0, 0, 0]), expected);
        }
        for (argument, expected) in [(0b011, ALLOWED), (0b100, REFUSED), (0b111, REFUSED)] {
            assert_eq!(verdict(3, [4, 4, argument, 4, 4, 4]), expected);
        }
        assert_eq!(verdict(4, [0; 6]), KILLED);
        assert_eq!(verdict(5, [0; 6]), REFUSED);
        assert_eq!(judge(&code, 78, 1, [0; 6]), KILLED, "another architecture's numbers mean other things");
        if cfg!(target_arch = "x86_64") {
            assert_eq!(verdict(X32 | 1, [0; 6]), KILLED);
        }
    }
}
