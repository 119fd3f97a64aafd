//! How much of something this process may have (getrlimit(2)).

use std::io;
use std::ptr;

use super::check;

/// Has as many descriptors at a time as the system lets it: a NIC takes one for each worker, and the usual 1,024 are
/// a limit for programs that use select(2). Returns how many.
pub fn raise_descriptors() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one `rlimit`.
    check(unsafe { libc::prlimit(0, libc::RLIMIT_NOFILE, ptr::null(), &raw mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the kernel reads one `rlimit`.
    check(unsafe { libc::prlimit(0, libc::RLIMIT_NOFILE, &raw const limit, ptr::null_mut()) })?;
    Ok(limit.rlim_cur)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_descriptors_is_what_the_system_allows() {
        let most = raise_descriptors().unwrap();
        assert!(most >= 1024, "{most}");
        assert_eq!(raise_descriptors().unwrap(), most);
    }
}
