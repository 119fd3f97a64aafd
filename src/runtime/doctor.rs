//! `tap-rs doctor`: what keeps a tunnel from working, or soon will, and what mends it.
//!
//! ```text
//! Subject: a config file, a running tap-rs, or both
//!    ├─ machine    root, kernel, clock
//!    ├─ settings   the config, its keys
//!    ├─ links      interfaces, addresses, MTUs, here and in NICs' own namespaces
//!    ├─ stack      what the kernel does with what comes in: sysctls, rules
//!    ├─ firewall   rules that may drop the tunnel's port
//!    ├─ reach      DNS, the server's answer, the port
//!    └─ proof      a marked frame through each NIC and back
//! ```
//!
//! It only looks: nothing is changed, and what it sends is a name to resolve, an echo request, a HELLO, and the marked
//! frames. Each finding is one sentence with the command that mends it.

mod finding;
mod firewall;
mod links;
mod machine;
mod proof;
mod reach;
mod settings;
mod stack;
mod subject;

use std::io::{IsTerminal, Write, stdout};

use self::finding::{Findings, Severity};
use self::subject::Subject;
use crate::cli::DoctorArgs;
use crate::commands::Failure;

/// Examines, prints what it found, and gives the exit status: 0 nothing to do, 3 warnings, 4 something is broken.
///
/// # Errors
/// No such name; nobody reads what is printed.
pub fn command(args: &DoctorArgs) -> Result<u8, Failure> {
    let mut findings = Findings::new(args.json, stdout().is_terminal());
    let subject = Subject::find(args)?;
    machine::examine(&subject, &mut findings)?;
    settings::examine(&subject, &mut findings)?;
    let here = subject.is_here(&mut findings)?;
    links::examine(&subject, here, &mut findings)?;
    if here {
        firewall::examine(&subject, &mut findings)?;
        reach::examine(&subject, &mut findings)?;
    }
    proof::examine(&subject, &mut findings)?;
    let worst = findings.finish()?;
    stdout().flush().map_err(|_| Failure::OutputClosed)?;
    Ok(match worst {
        Severity::Ok | Severity::Note => 0,
        Severity::Warning => 3,
        Severity::Broken => 4,
    })
}
