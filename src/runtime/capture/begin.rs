//! The running tap-rs's end: a capture is asked for.

use tokio::sync::Semaphore;

use super::stream::{Head, serve};
use crate::dataplane::capture::{MOST, channel};
use crate::nic::Side;
use crate::proto::output::PeerId;
use crate::runtime::control_socket::Asker;
use crate::runtime::plane::Plane;
use crate::runtime::ports::Ports;

/// All captures of this process: those who ask for something else are not kept out by them.
static PLACES: Semaphore = Semaphore::const_new(MOST);

/// Shows the frames of a NIC to whoever asked, or says why not. `name`: what a peer is called.
pub fn begin(
    asker: Asker,
    (nic, snaplen): (&str, u32),
    ports: &Ports,
    plane: &Plane,
    name: impl Fn(PeerId) -> String,
) {
    let Some(place) = ports.find(nic) else {
        return asker.refuse(format!("there is no NIC {nic} here; there are: {}", ports.names()));
    };
    let Some(key) = place.key else {
        let why = if place.gone { "its interface is gone" } else { "no session has told its number yet" };
        return asker.refuse(format!("{nic} carries nothing now: {why}; `tap-rs status` tells when it does"));
    };
    let Ok(permit) = PLACES.try_acquire() else {
        return asker.refuse(format!("{MOST} captures run here already; end one of them"));
    };
    let head = Head {
        nic: place.name,
        peer: name(place.peer),
        role: if place.side == Side::Client { "client" } else { "server" }.to_owned(),
        mac: place.mac.to_string(),
        mode: place.mode.to_string(),
    };
    let (capture, captured) = channel(usize::try_from(snaplen).unwrap_or(usize::MAX));
    plane.capture(key, &capture);
    asker.stream(|stream| async move {
        serve(stream, head, captured).await;
        drop(permit);
    });
}
