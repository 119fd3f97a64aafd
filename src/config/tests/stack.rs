//! `routing`, `gateway`, `netns`, `probe`, and the rules for NICs from the server.

use super::*;
use crate::types::Routing;

fn server_with(top: &str, nic: &str) -> String {
    at_top(top, &format!("{SERVER}{NIC}{nic}\n"))
}

fn stack(fixture: &Fixture, top: &str, nic: &str) -> NicStack {
    fixture.server(&server_with(top, nic)).clients[0].nics[0].stack.clone()
}

#[test]
fn routes_are_seen_to_unless_somebody_else_does() {
    let fixture = Fixture::new();
    assert_eq!(stack(&fixture, "", "").routing, Routing::Auto);
    assert_eq!(stack(&fixture, "routing = \"Auto\"", "").routing, Routing::Auto);
    assert_eq!(stack(&fixture, "routing = \"none\"", "").routing, Routing::None);
    assert_eq!(stack(&fixture, "", "configure = false").routing, Routing::None, "hands off");
    let macvtap = stack(&fixture, "tap_mode = \"macvtap\"", "parent = \"eth1\"");
    assert_eq!(macvtap.routing, Routing::None, "the addresses are a machine's beyond it");
    assert!(fixture.errors(&server_with("routing = \"yes\"", "")).contains("`routing` cannot be"));
    let client = at_top("routing = \"auto\"", &format!("{CLIENT}{NIC}"));
    assert!(fixture.errors(&client).contains("`routing` is for the server's file"));
}

#[test]
fn a_gateway_is_in_reach_of_its_nic() {
    let fixture = Fixture::new();
    let two = "gateway = [\"18.8.80.1\", \"fe80::1\"]";
    let gateways: Vec<_> = stack(&fixture, "", two).gateways.iter().map(ToString::to_string).collect();
    assert_eq!(gateways, ["18.8.80.1", "fe80::1"]);
    for (gateway, told) in [
        ("\"18.8.81.1\"", "in none of this NIC's subnets"),
        ("\"2001:db8::1\"", "in none of this NIC's subnets"),
        ("\"18.8.80.150\"", "is the NIC itself"),
        ("\"18.8.80.1/24\"", "without a prefix length"),
        ("[\"18.8.80.1\", \"18.8.80.2\"]", "one IPv4 gateway"),
    ] {
        let errors = fixture.errors(&server_with("", &format!("gateway = {gateway}")));
        assert!(errors.contains(told), "{gateway}: {errors}");
    }
    let warnings = fixture.warnings(&server_with("routing = \"none\"", "gateway = \"18.8.80.1\""));
    assert!(warnings.contains("it has no use here"), "{warnings}");
    let own = "netns = \"decoy7\"\ngateway = \"18.8.80.1\"";
    assert_eq!(fixture.warnings(&server_with("routing = \"none\"", own)), "");
}

#[test]
fn a_namespace_is_the_servers_and_has_a_name_that_leads_nowhere() {
    let fixture = Fixture::new();
    let netns = stack(&fixture, "", "netns = \"decoy7\"").netns.unwrap();
    assert_eq!(netns.as_str(), "decoy7");
    for bad in ["../x", "", "a b"] {
        let errors = fixture.errors(&server_with("", &format!("netns = \"{bad}\"")));
        assert!(errors.contains("cannot be the name of a network namespace"), "{errors}");
    }
    let macvtap = server_with("tap_mode = \"macvtap\"", "parent = \"eth1\"\nnetns = \"x\"");
    assert!(fixture.errors(&macvtap).contains("`netns` is for tap_mode = \"tap\""));
    for key in ["netns = \"x\"", "gateway = \"18.8.80.1\""] {
        let errors = fixture.errors(&format!("{CLIENT}{NIC}{key}\n"));
        assert!(errors.contains("is for the server's file"), "{errors}");
    }
}

#[test]
fn clients_ask_their_lan_unless_told_not_to() {
    let fixture = Fixture::new();
    let probe = |top: &str, nic: &str| {
        let c = fixture.client(&at_top(top, &format!("{CLIENT}{NIC}{nic}\n")));
        let NicSource::Local(nics) = c.nics else { panic!() };
        (c.probe, nics[0].probe)
    };
    assert_eq!(probe("", ""), (true, true));
    assert_eq!(probe("probe = false", ""), (false, false));
    assert_eq!(probe("probe = false", "probe = true"), (false, true));
    assert_eq!(probe("", "probe = false"), (true, false));
    for text in [server_with("probe = true", ""), server_with("", "probe = true")] {
        assert!(fixture.errors(&text).contains("`probe` is for the client's file"));
    }
}

#[test]
fn limits_say_how_strict_the_contract_is_for_nics_from_the_server() {
    let fixture = Fixture::new();
    let text = at_top("use_remote_config = true", CLIENT);
    let rules = "[limits]\nvlan = true\nstrict = true\nbroadcast_pps = 7\n";
    let rules = fixture.client(&format!("{text}{rules}")).limits.rules;
    assert_eq!(rules, NicRules { bridge: false, vlan: true, strict: true, broadcast_pps: 7 });
}
