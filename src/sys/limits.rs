//! How much of something this process may have (getrlimit(2)).

use std::io;
use std::ptr;

use super::check;

/// How many descriptors at a time the system lets this process have, where it asks for all of them.
pub fn most_descriptors() -> io::Result<u64> {
    descriptors().map(|limit| limit.rlim_max)
}

/// Has as many descriptors at a time as the system lets it: a NIC takes one for each worker, and the usual 1,024 are
/// a limit for programs that use select(2).
pub fn raise_descriptors() -> io::Result<()> {
    let mut limit = descriptors()?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the kernel reads one `rlimit`.
    check(unsafe { libc::prlimit(0, libc::RLIMIT_NOFILE, &raw const limit, ptr::null_mut()) }).map(drop)
}

fn descriptors() -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one `rlimit`.
    check(unsafe { libc::prlimit(0, libc::RLIMIT_NOFILE, ptr::null(), &raw mut limit) })?;
    Ok(limit)
}

/// Lets others have the processor before the calling thread, and before those that it starts from now on: by so many
/// steps of nice(2) more than so far.
pub fn step_back(steps: u8) {
    // SAFETY: no pointers. To become nicer takes no privilege; what cannot be is left.
    unsafe { libc::nice(steps.into()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_descriptors_is_what_the_system_allows() {
        let most = most_descriptors().unwrap();
        assert!(most >= 1024, "{most}");
        raise_descriptors().unwrap();
        let limit = descriptors().unwrap();
        assert_eq!((limit.rlim_cur, limit.rlim_max), (most, most));
    }
}
