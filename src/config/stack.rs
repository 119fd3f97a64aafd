//! What a server's `[[nics]]` says about the network stack around the NIC: `routing`, `gateway`, `netns`.

use std::net::IpAddr;

use toml::Spanned;

use crate::types::{NicAddr, NicMode, NicSpec, NicStack, Routing};

use super::check::{Check, span, switch};
use super::raw::{File, Nic};

/// The server's `routing`.
pub(super) fn routing(check: &mut Check<'_>, file: &File, mode: NicMode) -> Routing {
    let words = [("auto", Routing::Auto), ("none", Routing::None)];
    let routing = check.choice("routing", &file.routing, &words).unwrap_or(Routing::Auto);
    if mode == NicMode::Macvtap {
        // The addresses are a machine's on the parent; there is nothing here to route.
        if routing == Routing::Auto {
            check.unused(&file.routing, "`routing` has no use with tap_mode = \"macvtap\"");
        }
        return Routing::None;
    }
    routing
}

/// The stack of one NIC.
pub(super) fn stack(
    check: &mut Check<'_>,
    raw: &Nic,
    spec: &NicSpec,
    (mode, routing): (NicMode, Routing),
) -> NicStack {
    let netns = check.parse(&raw.netns);
    if mode == NicMode::Macvtap {
        check.misplaced(
            &raw.netns,
            "a macvtap stands on an interface of this namespace; `netns` is for tap_mode = \"tap\"",
        );
    }
    let gateways = gateways(check, raw, spec);
    let configured = switch(&raw.configure, true);
    if !configured {
        let message = "configure = false leaves the interface as it is, so this has no use";
        check.unused(&raw.gateway, message);
    } else if routing == Routing::None && netns.is_none() {
        let message =
            "a gateway is used by routing = \"auto\", and in a `netns` of the NIC's own; it has no use here";
        check.unused(&raw.gateway, message);
    }
    NicStack { routing: if configured { routing } else { Routing::None }, gateways, netns }
}

/// Notes that a client has none of this.
pub(super) fn misplaced_on_client(check: &mut Check<'_>, raw: &Nic) {
    let message = "this is for the server's file: the client's interface has no address, and routes nothing";
    check.misplaced(&raw.gateway, message);
    check.misplaced(
        &raw.netns,
        "`netns` is for the server's file; a client's NIC is in the namespace of its parent",
    );
}

fn gateways(check: &mut Check<'_>, raw: &Nic, spec: &NicSpec) -> Vec<IpAddr> {
    let Some(written) = &raw.gateway else { return Vec::new() };
    let mut gateways: Vec<IpAddr> = Vec::new();
    for text in written.get_ref().as_slice() {
        match gateway(text, spec) {
            Ok(ip) if gateways.iter().any(|g| g.is_ipv4() == ip.is_ipv4()) => {
                let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
                check.notes.error(written.span(), format!("a NIC has one {family} gateway; leave one out"));
            }
            Ok(ip) => gateways.push(ip),
            Err(message) => check.notes.error(span(&raw.gateway).or(Some(Spanned::span(written))), message),
        }
    }
    gateways
}

fn gateway(text: &str, spec: &NicSpec) -> Result<IpAddr, String> {
    let Ok(ip) = text.parse::<IpAddr>() else {
        return Err(format!(
            "{text:?} is not a gateway's address; write it without a prefix length, like \"18.8.80.1\""
        ));
    };
    if spec.addrs.iter().any(|a| a.ip == ip) {
        return Err(format!("{ip} is the NIC itself; `gateway` is the router of its LAN"));
    }
    if !is_link_local(ip) && !spec.addrs.iter().any(|a| on_link(a, ip)) {
        return Err(format!(
            "the gateway {ip} is in none of this NIC's subnets; give the address a prefix length that reaches it, like \
             ip = \"18.8.80.150/24\""
        ));
    }
    Ok(ip)
}

fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

fn on_link(addr: &NicAddr, ip: IpAddr) -> bool {
    let Some(prefix) = addr.prefix else { return false };
    let differs = match (addr.ip, ip) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        _ => return false,
    };
    differs >= u32::from(prefix)
}
