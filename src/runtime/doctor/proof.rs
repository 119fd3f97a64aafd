//! The proof: a marked frame through each NIC, to the other end and back.

use std::time::Duration;

use super::finding::Findings;
use super::subject::Subject;
use crate::commands::Failure;
use crate::metrics::DropReason;
use crate::runtime::control_socket::{Request, ask};
use crate::runtime::probe::{Outcome, Proof};
use crate::wire::probe::MIN_LEN;

/// One frame may be lost by chance.
const TRIES: u32 = 3;

/// A NIC that asks its LAN for its addresses passes nothing, for less than this.
const ASKS: Duration = Duration::from_millis(400);

/// The other end takes no more than so many in a second.
const PAUSE: Duration = Duration::from_millis(25);

/// Proves every NIC of the running one: with a short frame, and with the longest.
pub fn examine(subject: &Subject, findings: &mut Findings) -> Result<(), Failure> {
    let (Some(running), Some(name)) = (&subject.running, &subject.name) else {
        if subject.config().is_some() {
            findings.note(
                "proof",
                "tap-rs does not run, so no frame could be sent through it",
                "start it and look again",
            )?;
        }
        return Ok(());
    };
    let mut tried = Vec::new();
    for nic in &running.nics {
        if tried.iter().any(|(peer, outcome)| *peer == nic.peer && is_of_the_peer(*outcome)) {
            // What is wrong with the peer has been said.
            continue;
        }
        let outcome = prove(name, &nic.name, nic.mtu, findings)?;
        tried.push((nic.peer.clone(), outcome));
    }
    Ok(())
}

/// It would be the same for another NIC of that peer.
fn is_of_the_peer(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::NoSession | Outcome::Silent)
}

fn prove(name: &str, nic: &str, mtu: u16, findings: &mut Findings) -> Result<Outcome, Failure> {
    let (short, lost) = several(name, nic, MIN_LEN as u16)?;
    if short.outcome != Outcome::Passed {
        say(&short, None, findings)?;
        let outcome = short.outcome;
        findings.keep(short);
        return Ok(outcome);
    }
    let (long, more) = several(name, nic, 0)?;
    if let Some(far) = long.far_mtu.or(short.far_mtu).filter(|far| *far != mtu) {
        let what = format!(
            "{nic} has MTU {mtu} here and {far} at {}: the longer frames of one side are dropped by the other",
            long.peer
        );
        findings.broken("mtu", what, "write the same `mtu` for it in both files")?;
    }
    let lost = lost.saturating_add(more);
    if lost > 0 && long.outcome == Outcome::Passed {
        let what = format!("{nic}: {lost} of {} marked frames were lost on the way", lost.saturating_add(2));
        findings.warn("proof", what, "look at the path's loss: `mtr` to the other side, and its queues")?;
    }
    say(&long, Some(&short), findings)?;
    let outcome = long.outcome;
    findings.keep(short);
    findings.keep(long);
    Ok(outcome)
}

/// Tries again where it may have been chance: a frame lost, or all that was asked, or a busy machine at the other end, or a
/// NIC not yet up. The last proof, and how many frames before it were lost.
fn several(name: &str, nic: &str, bytes: u16) -> Result<(Proof, u32), Failure> {
    let (mut tries, mut lost) = (0u32, 0u32);
    loop {
        std::thread::sleep(PAUSE);
        let request = Request::Probe { nic: nic.to_owned(), bytes };
        let answer = ask(Some(name), &request).map_err(|e| Failure::Refused(e.to_string()))?;
        let proof: Proof = serde_json::from_slice(&answer).map_err(|e| {
            Failure::Refused(format!("{name} runs another version of tap-rs: {e}; restart it"))
        })?;
        tries = tries.saturating_add(1);
        let frame_lost = matches!(proof.outcome, Outcome::LostThere | Outcome::LostBack);
        let held = is_held(&proof);
        if !(frame_lost || held || proof.outcome == Outcome::Silent) || tries >= TRIES {
            return Ok((proof, lost));
        }
        if held {
            std::thread::sleep(ASKS);
        }
        lost = lost.saturating_add(u32::from(frame_lost));
    }
}

/// Dropped because the NIC is not live, here or there.
fn is_held(proof: &Proof) -> bool {
    let not_live = DropReason::NotLive.label();
    match proof.outcome {
        Outcome::DroppedHere | Outcome::DroppedBack => proof.reason.as_deref() == Some(not_live),
        Outcome::DroppedThere => proof.moved_there.contains(not_live),
        _ => false,
    }
}

fn say(proof: &Proof, shorter: Option<&Proof>, findings: &mut Findings) -> Result<(), Failure> {
    let Proof { nic, peer, bytes, .. } = proof;
    let here = moved(&proof.moved_here.iter().map(|(r, n)| format!("{r}+{n}")).collect::<Vec<_>>().join(","));
    let there = moved(&proof.moved_there);
    let but = match shorter {
        Some(short) => format!(" (one of {} bytes passes)", short.bytes),
        None => String::new(),
    };
    let lookup = "docs/FRAMES.md has what each reason means";
    match proof.outcome {
        Outcome::Passed => findings.ok("proof", passed(proof)),
        Outcome::NoSession => findings.broken("proof", format!("{nic}: there is no session with {peer}, so nothing passes"), "see what is found above, here and there; the logs of both sides say why"),
        Outcome::NicGone => findings.broken("proof", format!("{nic}: its interface is gone here"), "tap-rs makes it again as soon as it can; its log says what is in the way"),
        Outcome::Silent => findings.warn("proof", format!("{nic}: {peer} does not know marked frames: the other side is older than this, or answers nothing"), "install this version there, too: `tap-rs --version`"),
        Outcome::NoNic => findings.broken("proof", format!("{nic}: {peer} has no NIC of its number"), "reload the server (`kill -HUP`), and see that both files have the NIC"),
        Outcome::FarNicGone => findings.broken("proof", format!("{nic}: the interface is gone at {peer}"), "the log there says why"),
        Outcome::DroppedHere => {
            let reason = proof.reason.as_deref().unwrap_or("?");
            findings.broken("proof", format!("{nic}: a frame of {bytes} bytes is dropped here before it leaves, as {reason}{but}"), lookup)
        }
        Outcome::LostThere => findings.broken("proof", format!("{nic}: a frame of {bytes} bytes leaves here and never comes to the NIC at {peer}{but}{here}{there}"), "the path between the two loses it: look at MTU and firewalls on the way"),
        Outcome::DroppedThere => findings.broken("proof", format!("{nic}: a frame of {bytes} bytes comes to {peer} and is dropped there{but}{there}"), lookup),
        Outcome::LostBack => findings.broken("proof", format!("{nic}: a frame of {bytes} bytes comes to the NIC at {peer}, is sent back, and never comes here{but}{here}{there}"), "the path back loses it: look at MTU and firewalls on the way"),
        Outcome::DroppedBack => {
            let reason = proof.reason.as_deref().unwrap_or("?");
            findings.broken("proof", format!("{nic}: a frame of {bytes} bytes comes back from {peer} and is dropped here, as {reason}{but}"), lookup)
        }
    }
}

fn moved(counters: &str) -> String {
    if counters.is_empty() { String::new() } else { format!("; meanwhile was counted: {counters}") }
}

fn passed(proof: &Proof) -> String {
    let Proof { nic, peer, bytes, .. } = proof;
    let time = |us: Option<u64>| us.map_or_else(|| "?".to_owned(), micros);
    format!(
        "{nic}: {bytes} bytes to the NIC at {peer} and back in {}: here {}, the path {}, there {} in and {} out",
        time(proof.round_trip_us),
        time(proof.here_us),
        time(proof.network_us),
        time(proof.there_us),
        time(proof.back_us)
    )
}

fn micros(us: u64) -> String {
    if us < 1000 { format!("{us} us") } else { format!("{:.1} ms", us as f64 / 1000.0) }
}
