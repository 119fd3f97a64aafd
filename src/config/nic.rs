//! One `[[nics]]` table, as far as it means the same on both sides.

use std::ops::Range;

use toml::Spanned;

use crate::types::{MacAddr, Mtu, NicAddr, NicName, NicRules, NicSpec};

use super::check::{Check, Claims, switch};
use super::common::mtu;
use super::raw::{Nic, Number, Switch};

/// Most addresses of one NIC.
pub const ADDRS_MAX: usize = 16;

/// IPv6 needs links of at least this MTU (RFC 8200, section 5).
const IPV6_MTU_MIN: u16 = 1280;

/// What the NICs of one box must not share.
#[derive(Default)]
pub(super) struct NicClaims {
    names: Claims,
    macs: Claims,
    ips: Claims,
}

/// Checks a NIC and claims its name, MAC and addresses for it.
pub(super) fn nic(
    check: &mut Check<'_>,
    claims: &mut NicClaims,
    table: &Spanned<Nic>,
    default_mtu: Mtu,
) -> Option<(NicSpec, NicRules)> {
    let raw = table.get_ref();
    let rules = rules(check, &raw.bridge, &raw.vlan, &raw.strict, &raw.broadcast_pps);
    let mtu = mtu(check, &raw.mtu, default_mtu);
    let addrs = addresses(check, claims, table, rules, mtu);
    let mac = mac(check, claims, table);
    let name = name(check, claims, table);
    Some((NicSpec { name: name?, mac: mac?, addrs: addrs?, mtu }, rules))
}

/// The interface that a NIC's macvtap is created on.
pub(super) fn parent(
    check: &mut Check<'_>,
    raw: &Nic,
    default: Option<&NicName>,
    name: &NicName,
) -> Option<NicName> {
    let parent = check.parse::<NicName>(&raw.parent).or_else(|| default.cloned());
    if parent.as_ref() == Some(name) {
        let at = raw.parent.as_ref().or(raw.ifname.as_ref()).map(Spanned::span);
        let message =
            format!("{name} cannot be its own parent; `parent` is the real interface, like \"eth0\"");
        check.notes.error(at, message);
    }
    parent
}

fn name(check: &mut Check<'_>, claims: &mut NicClaims, table: &Spanned<Nic>) -> Option<NicName> {
    let Some(written) = &table.get_ref().ifname else {
        check.notes.missing("ifname", table.span(), "this NIC has no name; add ifname = \"tap0\"");
        return None;
    };
    let name: NicName = check.parse(&table.get_ref().ifname)?;
    check.claim(&mut claims.names, "the interface name", name.as_str(), written.span());
    Some(name)
}

fn mac(check: &mut Check<'_>, claims: &mut NicClaims, table: &Spanned<Nic>) -> Option<MacAddr> {
    let Some(written) = &table.get_ref().mac else {
        check.notes.missing(
            "mac",
            table.span(),
            "this NIC has no MAC address; add mac = \"be:17:dd:5c:07:17\", the same on both ends",
        );
        return None;
    };
    let mac: MacAddr = check.parse(&table.get_ref().mac)?;
    if !mac.is_assignable() {
        check.notes.error(
            written.span(),
            format!("{mac} cannot belong to an interface: it is zero or a group address; the second hex digit must be even, as in \"be:17:dd:5c:07:17\""),
        );
        return None;
    }
    check.claim(&mut claims.macs, "the MAC", &mac.to_string(), written.span());
    Some(mac)
}

fn addresses(
    check: &mut Check<'_>,
    claims: &mut NicClaims,
    table: &Spanned<Nic>,
    rules: NicRules,
    mtu: Mtu,
) -> Option<Vec<NicAddr>> {
    let Some(written) = &table.get_ref().ip else {
        if rules.bridge {
            return Some(Vec::new());
        }
        check.notes.missing(
            "ip",
            table.span(),
            "this NIC has no address; add ip = \"18.8.80.150/24\", the same on both ends",
        );
        return None;
    };
    let at = written.span();
    if written.get_ref().as_slice().len() > ADDRS_MAX {
        check.notes.error(at.clone(), format!("a NIC has at most {ADDRS_MAX} addresses"));
    }
    let mut addrs = Vec::new();
    for text in written.get_ref().as_slice() {
        match text.parse::<NicAddr>() {
            Ok(addr) => {
                check.claim(&mut claims.ips, "the address", &addr.ip.to_string(), at.clone());
                addrs.push(addr);
            }
            Err(e) => check.notes.error(at.clone(), e.0),
        }
    }
    if addrs.is_empty() && written.get_ref().as_slice().is_empty() && !rules.bridge {
        check.notes.error(at.clone(), "`ip` is empty; write ip = \"18.8.80.150/24\"");
    }
    refuse_ipv6_on_small_mtu(check, &addrs, mtu, at);
    Some(addrs)
}

fn refuse_ipv6_on_small_mtu(check: &mut Check<'_>, addrs: &[NicAddr], mtu: Mtu, at: Range<usize>) {
    if mtu.bytes() < IPV6_MTU_MIN && addrs.iter().any(|a| a.ip.is_ipv6()) {
        check.notes.error(
            at,
            format!("an IPv6 address needs an MTU of at least {IPV6_MTU_MIN}, and this NIC's is {mtu}; raise `mtu`"),
        );
    }
}

/// How strictly the contract is applied, from the keys of a NIC or of `[limits]`.
pub(super) fn rules(
    check: &mut Check<'_>,
    bridge: &Switch,
    vlan: &Switch,
    strict: &Switch,
    broadcast_pps: &Number,
) -> NicRules {
    let default = NicRules::default();
    NicRules {
        bridge: switch(bridge, default.bridge),
        vlan: switch(vlan, default.vlan),
        strict: switch(strict, default.strict),
        broadcast_pps: check.number("broadcast_pps", broadcast_pps, 1..=1_000_000, default.broadcast_pps),
    }
}
