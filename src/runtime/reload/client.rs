//! What differs between two configs of a client.

use super::{Reloaded, common_difference, list, listed, nic_properties, or_none, properties, rules};
use crate::config::{ClientConfig, ClientNic, NicSource, ScriptPolicy};

/// From `old` to `new`. `rekeyed`: the private or the pre-shared key is another one. Also: whether that, or another
/// server's key or suite, wants a new session.
pub fn client_difference(old: &ClientConfig, new: &ClientConfig, rekeyed: bool) -> (Reloaded, bool) {
    let mut told = Reloaded::default();
    common_difference(&mut told, &old.common, &new.common);
    told.key("bind_addr", &old.server, &new.server, ToString::to_string);
    told.key("keepalive", &old.keepalive, &new.keepalive, |t| format!("{} s", t.as_secs()));
    let who = told.changes.len();
    told.key("public_key", &old.server_key, &new.server_key, ToString::to_string);
    told.key("suite", &old.suite, &new.suite, |s| format!("{s:?}").to_lowercase());
    if rekeyed || old.psk.is_some() != new.psk.is_some() {
        told.changed("private_key or psk: another key");
    }
    let fresh = told.changes.len() > who;
    if fresh {
        told.changed("the session: a new one");
    }
    told.key("tap_mode", &old.mode, &new.mode, ToString::to_string);
    told.key("reply_arp", &old.reply_arp, &new.reply_arp, ToString::to_string);
    told.key("probe", &old.probe, &new.probe, ToString::to_string);
    told.key("script", &old.script, &new.script, policy);
    told.key("script_timeout", &old.script_timeout, &new.script_timeout, |t| format!("{} s", t.as_secs()));
    told.key("limits", &old.limits, &new.limits, |l| {
        let parents = list(&l.parents);
        let rules: Vec<_> =
            rules(&l.rules).into_iter().map(|(key, value)| format!("{key} {value}")).collect();
        format!(
            "{} NICs, MTU {} to {}, parents {parents}, {}",
            l.max_nics,
            l.mtu.start(),
            l.mtu.end(),
            rules.join(", ")
        )
    });
    told.key("the NICs' source", &source(&old.nics), &source(&new.nics), Clone::clone);
    let name = |nic: &ClientNic| format!("nic {}", nic.spec.name);
    listed(&mut told, (own(&old.nics), own(&new.nics)), name, |old, new| {
        let mut all = nic_properties((&old.spec, &old.rules), (&new.spec, &new.rules));
        all.push(("parent", or_none(old.parent.as_ref()), or_none(new.parent.as_ref())));
        all.push(("probe", old.probe.to_string(), new.probe.to_string()));
        properties(&all)
    });
    (told, fresh)
}

fn own(source: &NicSource) -> &[ClientNic] {
    match source {
        NicSource::Local(nics) => nics,
        NicSource::Remote { .. } => &[],
    }
}

fn source(source: &NicSource) -> String {
    match source {
        NicSource::Local(_) => "this file".to_owned(),
        NicSource::Remote { parent } => format!("the server, made on {}", or_none(parent.as_ref())),
    }
}

fn policy(policy: &ScriptPolicy) -> String {
    match policy {
        ScriptPolicy::Never => "never".to_owned(),
        ScriptPolicy::Pinned(hashes) => {
            let start = |hash: &[u8; 32]| hash.iter().take(4).map(|b| format!("{b:02x}")).collect::<String>();
            format!("pinned {}…", list(&hashes.iter().map(start).collect::<Vec<_>>()))
        }
        ScriptPolicy::Any => "any".to_owned(),
    }
}
