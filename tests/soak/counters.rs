//! What kernels count of packets that were not as they should be.

use crate::common::ns::Ns;

/// What a kernel has counted of packets that were not as they should be.
pub fn kernel_errors(ns: &Ns) -> Vec<(String, u64)> {
    // Not `/proc/net`, which is the namespace of the process's first thread.
    let read =
        |name: &str| std::fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default();
    let (pairs, six) = ns.inside(|| ([read("snmp"), read("netstat")].concat(), read("snmp6")));
    let wanted = |name: &str| name.ends_with("CsumErrors") || name.ends_with("InHdrErrors");
    let mut found: Vec<(String, u64)> = Vec::new();
    let lines: Vec<&str> = pairs.lines().collect();
    for two in lines.chunks_exact(2) {
        let (names, values) = (two[0].split(' '), two[1].split(' '));
        let kind = names.clone().next().unwrap_or_default();
        let counters = names.zip(values).skip(1).filter(|(name, _)| wanted(name));
        found.extend(counters.map(|(name, value)| (format!("{kind}{name}"), value.parse().unwrap())));
    }
    let counters = six.lines().filter_map(|line| line.split_once(char::is_whitespace));
    found.extend(
        counters.filter(|(name, _)| wanted(name)).map(|(n, v)| (n.to_owned(), v.trim().parse().unwrap())),
    );
    assert!(found.len() > 5, "the kernel's counters are not where they were: {found:?}");
    found
}
