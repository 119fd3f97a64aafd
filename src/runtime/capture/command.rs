//! `tap-rs capture`.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, IsTerminal, Write, stderr, stdout};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::SystemTime;

use tokio::signal::unix::{SignalKind, signal};

use super::stream::{self, Head, Next, Note, Shown};
use super::{line, pcapng};
use crate::cli::CaptureArgs;
use crate::commands::Failure;
use crate::runtime::control_socket::{AskError, Request, ask_all, ask_stream};
use crate::runtime::status::Snapshot;
use crate::wire::record::MAX_FRAME;

/// How much of a frame is enough to say in a line what it is, in bytes.
const FRONT: u32 = 192;

/// The status of a program that was interrupted by SIGINT.
const INTERRUPTED: i32 = 130;

/// Shows frames until as many have passed as are wanted, the NIC is gone, or somebody interrupts.
///
/// # Errors
/// No such NIC; nobody runs; the file cannot be written.
pub fn command(args: &CaptureArgs) -> Result<(), Failure> {
    let refused = |e: AskError| Failure::Refused(e.to_string());
    let name = whose(args)?;
    let whole = if args.write.is_some() { MAX_FRAME as u32 } else { FRONT };
    let snaplen = args.snaplen.unwrap_or(whole).clamp(14, MAX_FRAME as u32);
    let request = Request::Capture { nic: args.nic.clone(), snaplen };
    let (head, stream) = ask_stream(&name, &request).map_err(refused)?;
    let head: Head = serde_json::from_str(&head).map_err(|e| {
        Failure::Refused(format!(
            "{name} runs another version of tap-rs, whose answer is not understood: {e}"
        ))
    })?;
    end_at_signal(&stream);
    let mut out = Out::open(args.write.as_deref(), &head, snaplen)?;
    let seen = copy(stream, args, &mut out);
    let (seen, lost) = out.finish(seen)?;
    let lost =
        if lost == 0 { String::new() } else { format!(", {lost} lost: too many for whoever reads them") };
    let _ = writeln!(stderr(), "{seen} frames{lost}");
    Ok(())
}

/// Which of those that run has the NIC.
fn whose(args: &CaptureArgs) -> Result<String, Failure> {
    let refused = |e: AskError| Failure::Refused(e.to_string());
    let all = ask_all(args.name.as_deref(), &Request::Status {}).map_err(refused)?;
    let parse = |(name, document): (String, Vec<u8>)| {
        serde_json::from_slice::<Snapshot>(&document).ok().map(|snapshot| (name, snapshot))
    };
    let all: Vec<(String, Snapshot)> = all.into_iter().filter_map(parse).collect();
    let has = |s: &Snapshot| s.nics.iter().any(|nic| nic.name == args.nic);
    let mut with = all.iter().filter(|(_, s)| has(s)).map(|(name, _)| name.clone());
    match (with.next(), with.next()) {
        (Some(only), None) => Ok(only),
        (Some(one), Some(other)) => Err(Failure::Refused(format!(
            "several tap-rs here have a NIC {}; name one of them: `tap-rs capture {0} {one}` or `… {other}`",
            args.nic
        ))),
        (None, _) => {
            let nics: Vec<_> = all.iter().flat_map(|(_, s)| &s.nics).map(|nic| nic.name.as_str()).collect();
            let there = if nics.is_empty() { "none".to_owned() } else { nics.join(", ") };
            Err(Failure::Refused(format!("no NIC of tap-rs here is named {}; there are: {there}", args.nic)))
        }
    }
}

/// A signal ends the connection, and so the capture, in good order; from when this returns.
fn end_at_signal(stream: &UnixStream) {
    let Ok(stream) = stream.try_clone() else { return };
    let (ready, is_ready) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_io().build() else { return };
        runtime.block_on(async {
            let (Ok(mut stop), Ok(mut interrupt)) =
                (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
            else {
                return;
            };
            let _ = ready.send(());
            tokio::select! {
                _ = stop.recv() => {}
                _ = interrupt.recv() => {}
            }
            // The other side says what there is left to say.
            let _ = stream.shutdown(Shutdown::Write);
            tokio::select! {
                _ = stop.recv() => {}
                _ = interrupt.recv() => {}
            }
            // Nobody reads what we write, and we were asked twice.
            std::process::exit(INTERRUPTED);
        });
    });
    // Also where there will be none.
    let _ = is_ready.recv();
}

/// Frames that were shown, and frames that were lost.
type Counts = (u64, u64);

/// Copies until the end. What was seen so far counts even where the end is an error.
fn copy(stream: UnixStream, args: &CaptureArgs, out: &mut Out) -> (Counts, Result<(), Failure>) {
    let mut stream = BufReader::new(stream);
    let (mut seen, mut lost) = (0u64, 0u64);
    let ended = loop {
        if args.count.is_some_and(|most| seen >= most) {
            break Ok(());
        }
        // What there is goes out before more is waited for.
        if stream.buffer().is_empty()
            && let Err(e) = out.flush()
        {
            break Err(e);
        }
        let frame = match stream::read(&mut stream) {
            Ok(Next::Frame(frame)) => frame,
            Ok(Next::End(all)) => {
                lost = all;
                break Ok(());
            }
            Ok(Next::Gone) => break Ok(()),
            Err(e) => break Err(Failure::Refused(format!("the capture has ended: {e}"))),
        };
        let missed = frame.lost.saturating_sub(lost);
        lost = frame.lost;
        if args.dropped && !matches!(frame.note, Note::Dropped(_)) {
            continue;
        }
        seen = seen.saturating_add(1);
        if let Err(e) = out.frame(&frame, missed) {
            break Err(e);
        }
    };
    ((seen, lost), ended)
}

/// Where frames go.
enum Out {
    Text { head: Head, narrow: bool },
    Pcapng { file: BufWriter<File>, what: String },
}

impl Out {
    fn open(path: Option<&Path>, head: &Head, snaplen: u32) -> Result<Self, Failure> {
        let Some(path) = path else {
            let narrow = stdout().is_terminal();
            let _ = writeln!(stderr(), "{} ({}) at the {}, times are UTC", head.nic, head.mac, head.role);
            return Ok(Self::Text { head: head.clone(), narrow });
        };
        let what = path.display().to_string();
        let file = if path == Path::new("-") {
            if stdout().is_terminal() {
                return Err(Failure::Usage(
                    "a capture file is not for a terminal; write `-w FILE`, or `-w - | wireshark -k -i -`"
                        .into(),
                ));
            }
            use std::os::fd::AsFd;
            stdout().as_fd().try_clone_to_owned().map(File::from)
        } else {
            File::create(path)
        };
        let cannot = |e: io::Error| Failure::Refused(format!("cannot write {what}: {e}"));
        let mut file = BufWriter::new(file.map_err(cannot)?);
        pcapng::start(&mut file, head, snaplen).map_err(|e| written(&what, e))?;
        Ok(Self::Pcapng { file, what })
    }

    fn frame(&mut self, frame: &Shown, missed: u64) -> Result<(), Failure> {
        match self {
            Self::Text { head, narrow } => {
                let mut out = stdout().lock();
                if missed > 0 {
                    let _ = writeln!(stderr(), "{missed} frames lost");
                }
                writeln!(out, "{}", line::line(frame, head.mac(), *narrow)).map_err(|_| Failure::OutputClosed)
            }
            Self::Pcapng { file, what } => pcapng::frame(file, frame, missed).map_err(|e| written(what, e)),
        }
    }

    fn flush(&mut self) -> Result<(), Failure> {
        match self {
            Self::Text { .. } => stdout().flush().map_err(|_| Failure::OutputClosed),
            Self::Pcapng { file, what } => file.flush().map_err(|e| written(what, e)),
        }
    }

    fn finish(&mut self, (counts, ended): (Counts, Result<(), Failure>)) -> Result<Counts, Failure> {
        ended?;
        if let Self::Pcapng { file, what } = self {
            let (seen, lost) = counts;
            pcapng::finish(file, SystemTime::now(), seen, lost).map_err(|e| written(what, e))?;
        }
        self.flush()?;
        Ok(counts)
    }
}

fn written(what: &str, e: io::Error) -> Failure {
    match e.kind() {
        io::ErrorKind::BrokenPipe => Failure::OutputClosed,
        _ => Failure::Refused(format!("cannot write {what}: {e}")),
    }
}
