//! The files that hold keys: which are trusted, and how they are made.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use zeroize::Zeroizing;

use super::{KeyError, refuse};

/// A key file is a line of 44 characters; whatever is longer than this is something else.
const FILE_MAX: usize = 256;

/// Reads a secret from a regular file that nobody but root and the effective user can have written or read.
/// `make` is the command that creates such a file.
pub(super) fn read_secret(path: &Path, make: &str) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    refuse_public(path)?;
    let file = open(path, make)?;
    let meta = file.metadata().map_err(|e| cannot_read(path, &e))?;
    trusted(path, &meta, effective_user())?;
    contents(&file, path)
}

/// Reads a public key's file: anyone may own it, nobody needs to be kept out.
pub(super) fn read_public(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let options = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).to_owned();
    let file = options.open(path).map_err(|e| match e.kind() {
        ErrorKind::NotFound => KeyError(format!(
            "{} is neither a key in base64 nor a file; write the public key that `tap-rs keygen` printed",
            path.display()
        )),
        _ => cannot_read(path, &e),
    })?;
    contents(&file, path)
}

fn open(path: &Path, make: &str) -> Result<File, KeyError> {
    // O_NONBLOCK: opening a FIFO must not wait for its other end. The standard library adds O_CLOEXEC.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(|e| cannot_open(path, make, &e))
}

fn cannot_open(path: &Path, make: &str, e: &std::io::Error) -> KeyError {
    match (e.kind(), e.raw_os_error()) {
        (ErrorKind::NotFound, _) => {
            KeyError(format!("there is no key file {}; make one with `{make}`", path.display()))
        }
        (_, Some(libc::ELOOP)) => KeyError(format!(
            "{} is a symbolic link, and keys are read without following one; name the file itself: `realpath {}`",
            path.display(),
            shell_word(path)
        )),
        (ErrorKind::PermissionDenied, _) => KeyError(format!(
            "user {} may not read {}; run tap-rs as the owner of the file, or as root",
            effective_user(),
            path.display()
        )),
        _ => cannot_read(path, e),
    }
}

/// The bytes of a public key would pass for a private one, which everybody knows.
fn refuse_public(path: &Path) -> Result<(), KeyError> {
    if path.extension().is_none_or(|e| e != "pub") {
        return Ok(());
    }
    refuse(format!(
        "{} is a public key's file, and nothing secret; name the file of the secret itself, which has no .pub",
        path.display()
    ))
}

/// Regular, ours or root's, and closed to everyone else.
fn trusted(path: &Path, meta: &Metadata, user: u32) -> Result<(), KeyError> {
    let (shown, word) = (path.display(), shell_word(path));
    if !meta.is_file() {
        return refuse(format!(
            "{shown} is not a regular file, so it cannot hold a key; make one with `tap-rs keygen --out FILE`"
        ));
    }
    if meta.uid() != 0 && meta.uid() != user {
        return refuse(format!(
            "{shown} belongs to user {}, who could read and change the key; run `chown {user} {word}`",
            meta.uid()
        ));
    }
    if meta.mode() & 0o077 != 0 {
        return refuse(format!(
            "others may open {shown} (mode {:04o}); run `chmod 600 {word}`",
            meta.mode() & 0o7777
        ));
    }
    Ok(())
}

/// The whole file, if it is as short as a key file is.
fn contents(mut file: impl Read, path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let mut buffer = Zeroizing::new([0u8; FILE_MAX + 1]);
    let mut room: &mut [u8] = buffer.as_mut_slice();
    loop {
        match file.read(room) {
            Ok(0) => break,
            Ok(n) => room = room.split_at_mut_checked(n).map_or(&mut [], |(_, rest)| rest),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(cannot_read(path, &e)),
        }
    }
    let unused = room.len();
    if unused == 0 {
        return refuse(format!(
            "{} is longer than {FILE_MAX} bytes; a key file is one line of 44 characters",
            path.display()
        ));
    }
    let used = buffer.len().saturating_sub(unused);
    Ok(Zeroizing::new(buffer.iter().take(used).copied().collect()))
}

/// Creates `path` with `line` and a newline in it. Never overwrites; leaves nothing half-written behind.
pub(super) fn write_new(path: &Path, mode: u32, line: &str) -> Result<(), KeyError> {
    let created = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let file = created.map_err(|e| cannot_create(path, &e))?;
    if let Err(e) = write_line(&file, line) {
        remove(path);
        return refuse(format!("cannot write {}: {e}", path.display()));
    }
    Ok(())
}

fn cannot_create(path: &Path, e: &std::io::Error) -> KeyError {
    match e.kind() {
        ErrorKind::AlreadyExists => KeyError(format!(
            "{} exists, and keys are never overwritten; choose another name, or move it away first: `mv {w} {w}.old`",
            path.display(),
            w = shell_word(path)
        )),
        ErrorKind::NotFound => KeyError(format!(
            "the folder of {} does not exist; run `mkdir -p {}`",
            path.display(),
            shell_word(path.parent().unwrap_or(Path::new(".")))
        )),
        ErrorKind::PermissionDenied => KeyError(format!(
            "user {} may not create {}; run as root, or choose a folder of your own",
            effective_user(),
            path.display()
        )),
        _ => KeyError(format!("cannot create {}: {e}", path.display())),
    }
}

fn write_line(mut file: &File, line: &str) -> std::io::Result<()> {
    file.write_all(line.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()
}

/// Takes back a file that we have just made.
pub(super) fn remove(path: &Path) {
    // Nothing more can be done where this fails too, and the first error is the one to show.
    let _ = std::fs::remove_file(path);
}

fn cannot_read(path: &Path, e: &std::io::Error) -> KeyError {
    KeyError(format!("cannot read {}: {e}", path.display()))
}

/// The effective user: the owner of our own directory in /proc. Without /proc, a user who owns no file.
fn effective_user() -> u32 {
    std::fs::metadata("/proc/self").map_or(u32::MAX, |m| m.uid())
}

/// A path as one word of a shell command.
pub fn shell_word(path: &Path) -> String {
    let text = path.to_string_lossy();
    if !text.is_empty() && !text.starts_with('-') && text.chars().all(is_plain) {
        return text.into_owned();
    }
    let dashed = if text.starts_with('-') { "./" } else { "" };
    format!("'{dashed}{}'", text.replace('\'', r"'\''"))
}

/// True for characters that mean nothing to a shell.
fn is_plain(c: char) -> bool {
    c.is_alphanumeric() || "/._-+@%:,=".contains(c)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    const LINE: &str = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";

    fn refusal(path: &Path) -> String {
        read_secret(path, "tap-rs keygen --out K").unwrap_err().0
    }

    #[test]
    fn a_file_that_others_may_open_is_refused_with_the_chmod() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k");
        write_new(&path, 0o600, LINE).unwrap();
        assert_eq!(read_secret(&path, "").unwrap().as_slice(), format!("{LINE}\n").as_bytes());
        for mode in [0o640, 0o604, 0o601, 0o610] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let why = refusal(&path);
            assert!(why.contains(&format!("`chmod 600 {}`", path.display())), "{why}");
        }
    }

    #[test]
    fn who_may_not_reach_a_file_hears_as_whom_it_was_tried() {
        let (path, denied) = (Path::new("/k"), std::io::Error::from(ErrorKind::PermissionDenied));
        let user = effective_user();
        assert!(cannot_open(path, "", &denied).0.starts_with(&format!("user {user} may not read /k;")));
        assert!(cannot_create(path, &denied).0.starts_with(&format!("user {user} may not create /k;")));
    }

    #[test]
    fn a_read_that_a_signal_interrupts_goes_on_and_another_error_does_not() {
        struct Trouble(Vec<Result<u8, ErrorKind>>);
        impl Read for Trouble {
            fn read(&mut self, room: &mut [u8]) -> std::io::Result<usize> {
                let Some(next) = self.0.pop() else { return Ok(0) };
                [next?].as_slice().read(room)
            }
        }
        let read = |what: &[_]| contents(Trouble(what.iter().rev().copied().collect()), Path::new("/k"));
        let signal = Err(ErrorKind::Interrupted);
        assert_eq!(*read(&[signal, Ok(b'a'), signal, Ok(b'b')]).unwrap(), b"ab");
        let broken = Err(ErrorKind::UnexpectedEof);
        assert!(read(&[Ok(b'a'), broken, Ok(b'b')]).unwrap_err().0.contains("cannot read /k"));
    }

    #[test]
    fn a_public_keys_file_is_no_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("my.key.pub");
        write_new(&path, 0o600, LINE).unwrap();
        let why = refusal(&path);
        assert!(why.contains("my.key.pub is a public key's file"), "{why}");
    }

    #[test]
    fn links_folders_fifos_and_long_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        write_new(&at("k"), 0o600, LINE).unwrap();
        symlink(at("k"), at("link")).unwrap();
        assert!(refusal(&at("link")).contains("symbolic link"));
        assert!(refusal(folder.path()).contains("not a regular file"));
        let made = std::process::Command::new("mkfifo").arg(at("fifo")).status().unwrap();
        assert!(made.success());
        assert!(refusal(&at("fifo")).contains("not a regular file"));
        write_new(&at("long"), 0o600, &LINE.repeat(9)).unwrap();
        assert!(refusal(&at("long")).contains("longer than"));
        assert!(refusal(&at("none")).contains("`tap-rs keygen --out K`"));
    }

    #[test]
    fn what_is_not_there_or_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        assert!(read_public(&at("none")).unwrap_err().0.contains("is neither a key in base64 nor a file"));
        let why = read_public(folder.path()).unwrap_err().0;
        assert!(why.starts_with("cannot read"), "{why}");
        write_new(&at("k"), 0o600, LINE).unwrap();
        assert!(write_new(&at("k"), 0o600, LINE).unwrap_err().0.contains("never overwritten"));
        assert!(write_new(&at("no/k"), 0o600, LINE).unwrap_err().0.contains("mkdir -p"));
        symlink(at("k"), at("link")).unwrap();
        assert!(refusal(&at("link")).contains("realpath"));
    }

    #[test]
    fn a_file_of_the_longest_length_is_read_and_one_byte_more_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k");
        for (len, taken) in [(0, true), (FILE_MAX, true), (FILE_MAX + 1, false)] {
            std::fs::write(&path, vec![b'a'; len]).unwrap();
            assert_eq!(read_public(&path).is_ok_and(|b| b.len() == len), taken, "{len}");
        }
    }

    #[test]
    fn roots_files_are_trusted_by_everybody_and_others_files_by_their_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k");
        write_new(&path, 0o600, LINE).unwrap();
        let meta = std::fs::metadata(&path).unwrap();
        assert_eq!(meta.uid(), effective_user());
        assert_eq!(trusted(&path, &meta, meta.uid() + 1).is_ok(), meta.uid() == 0);
    }

    #[test]
    fn a_file_of_another_user_is_refused_with_the_chown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k");
        write_new(&path, 0o600, LINE).unwrap();
        let meta = std::fs::metadata(&path).unwrap();
        assert!(trusted(&path, &meta, meta.uid()).is_ok());
        if meta.uid() == 0 {
            std::os::unix::fs::chown(&path, Some(4711), None).unwrap();
        }
        let meta = std::fs::metadata(&path).unwrap();
        let why = trusted(&path, &meta, 1).unwrap_err().0;
        assert!(why.contains("`chown 1 "), "{why}");
    }

    #[test]
    fn paths_in_commands_are_quoted_where_a_shell_would_split_them() {
        for (path, word) in [
            ("/etc/tap-rs/a.key", "/etc/tap-rs/a.key"),
            ("my key", "'my key'"),
            ("it's", r"'it'\''s'"),
            ("-k", "'./-k'"),
            ("", "''"),
        ] {
            assert_eq!(shell_word(Path::new(path)), word);
        }
    }
}
