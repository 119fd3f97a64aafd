//! What differs between two configs of a server.

use super::{Reloaded, common_difference, list, listed, nic_properties, or_none, properties};
use crate::config::{ClientEntry, ServerConfig, ServerNic};
use crate::types::NicStack;

/// From `old` to `new`. `rekeyed`: whether the pre-shared key of the client of this name is another one.
pub fn server_difference(old: &ServerConfig, new: &ServerConfig, rekeyed: impl Fn(&str) -> bool) -> Reloaded {
    let mut told = Reloaded::default();
    common_difference(&mut told, &old.common, &new.common);
    if old.bind != new.bind {
        told.restart.push("bind_addr".to_owned());
    }
    told.key("suites", &old.suites, &new.suites, |suites| {
        suites.iter().map(|s| if s.is_aes() { "aes" } else { "chacha" }).collect::<Vec<_>>().join(" ")
    });
    told.key("tap_mode", &old.mode, &new.mode, ToString::to_string);
    told.key("public_addr", &old.public_addr, &new.public_addr, |addr| or_none(addr.as_ref()));
    let name = |client: &ClientEntry| format!("client {}", client.name);
    listed(&mut told, (&old.clients, &new.clients), name, |old, new| {
        let mut what = properties(&[
            ("key", old.says_who(), new.says_who()),
            ("psk", psk(old), psk(new)),
            ("client_tap_mode", or_none(old.client_mode.as_ref()), or_none(new.client_mode.as_ref())),
        ]);
        if rekeyed(&new.name) && old.psk == new.psk {
            what.push("another pre-shared key".to_owned());
        }
        if old.script != new.script {
            what.push("another script".to_owned());
        }
        what
    });
    let (old, new) = (nics(old), nics(new));
    let name = |(client, nic): &(&str, &ServerNic)| format!("nic {} of client {client}", nic.spec.name);
    listed(&mut told, (&old, &new), name, |(_, old), (_, new)| {
        let mut all = nic_properties((&old.spec, &old.rules), (&new.spec, &new.rules));
        all.extend([
            ("parent", or_none(old.parent.as_ref()), or_none(new.parent.as_ref())),
            ("client_ifname", old.client_name.to_string(), new.client_name.to_string()),
            ("client_parent", or_none(old.client_parent.as_ref()), or_none(new.client_parent.as_ref())),
            ("configure", old.configure.to_string(), new.configure.to_string()),
            ("routing", routing(&old.stack), routing(&new.stack)),
            ("gateway", list(&old.stack.gateways), list(&new.stack.gateways)),
            ("netns", or_none(old.stack.netns.as_ref()), or_none(new.stack.netns.as_ref())),
        ]);
        properties(&all)
    });
    told
}

fn routing(stack: &NicStack) -> String {
    format!("{:?}", stack.routing).to_lowercase()
}

fn psk(client: &ClientEntry) -> String {
    or_none(client.psk.as_ref().map(|p| p.display().to_string()).as_ref())
}

fn nics(config: &ServerConfig) -> Vec<(&str, &ServerNic)> {
    config.clients.iter().flat_map(|c| c.nics.iter().map(|n| (c.name.as_str(), n))).collect()
}
