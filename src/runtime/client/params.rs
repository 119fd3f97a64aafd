//! What of a client's config its state machine and its NICs go by.

use std::path::Path;

use rand::RngExt;

use crate::commands::Failure;
use crate::config::{ClientConfig, NicSource, SuiteChoice};
use crate::keys::{PresharedKey, PrivateKey};
use crate::nic::{NicRequest, Side};
use crate::proto::client::{ClientParams, SERVER};
use crate::proto::pull::hash_of;
use crate::runtime::ports::Wanted;
use crate::types::{NicStack, Suite};

/// The files that a reload reads besides the config.
pub(super) fn files(config: &ClientConfig) -> impl Iterator<Item = &Path> {
    let own = [config.common.private_key.as_path()];
    own.into_iter().chain(config.psk.as_deref()).chain(config.files.iter().map(|file| file.as_path()))
}

pub(super) fn params(config: &ClientConfig) -> Result<ClientParams, Failure> {
    let identity = PrivateKey::read(&config.common.private_key)?;
    let mut params = ClientParams::new(identity, config.server_key, suite(config), rand::rng().random());
    params.psk = config.psk.as_deref().map(PresharedKey::read).transpose()?;
    params.dead_after = config.common.dead_peer;
    params.idle_ping = config.keepalive;
    Ok(params)
}

pub(super) fn suite(config: &ClientConfig) -> Suite {
    let aes = match config.suite {
        SuiteChoice::Auto => has_aes(),
        SuiteChoice::Aes => true,
        SuiteChoice::ChaCha => false,
    };
    if aes { Suite::Aes } else { Suite::ChaCha }.with_psk(config.psk.is_some())
}

pub(super) fn fingerprint(psk: &PresharedKey) -> [u8; 32] {
    hash_of(psk.as_bytes())
}

/// The NICs of the client's own file, whose numbers the server will tell.
pub(super) fn local_nics(config: &ClientConfig) -> Vec<Wanted> {
    let NicSource::Local(nics) = &config.nics else { return Vec::new() };
    nics.iter()
        .map(|nic| Wanted {
            peer: SERVER,
            id: None,
            request: NicRequest {
                spec: nic.spec.clone(),
                mode: config.mode,
                parent: nic.parent.clone(),
                side: Side::Client,
                configure: true,
                offload: config.common.offload,
                stack: NicStack::default(),
            },
            rules: nic.rules,
            reply_arp: config.reply_arp,
            probe: nic.probe,
        })
        .collect()
}

/// The processor has instructions for AES and for GCM's multiplication.
pub fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::is_x86_feature_detected!("aes") && std::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}
