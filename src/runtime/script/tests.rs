use super::*;
use std::fs;
use std::path::Path;
use std::sync::Mutex;

fn alone<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn run_for(limit: Duration, text: impl AsRef<[u8]>) -> (Outcome, Vec<String>) {
    let mut said = Vec::new();
    let script = Script { bytes: text.as_ref(), limit };
    let outcome = alone(run_with(script, |line| said.push(line.to_owned()))).unwrap();
    (outcome, said)
}

/// A script that is expected to end by itself.
fn run_text(text: impl AsRef<[u8]>) -> (Outcome, Vec<String>) {
    run_for(Duration::from_secs(30), text)
}

fn said(text: &str) -> Vec<String> {
    let (outcome, said) = run_text(text);
    assert_eq!(outcome, Outcome::Exited(0), "{said:?}");
    said
}

/// Long enough for a shell to come to its point.
const LIMIT: Duration = Duration::from_secs(2);

/// True once no such process is left, or only its dead body.
fn gone(pid: &str) -> bool {
    let end = std::time::Instant::now() + Duration::from_secs(30);
    while std::time::Instant::now() < end {
        match fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) if !stat.contains(") Z ") => std::thread::sleep(Duration::from_millis(5)),
            _ => return true,
        }
    }
    false
}

fn running(pid: &str) -> bool {
    Path::new("/proc").join(pid).exists()
}

fn kill(pid: &str) {
    Command::new("/bin/sh").args(["-c", &format!("kill -9 {pid}")]).status().unwrap();
}

#[test]
fn the_policy_decides_by_the_hash() {
    let sum = allowed(&ScriptPolicy::Any, b"abc").unwrap();
    assert_eq!(hex(&sum), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_eq!(allowed(&ScriptPolicy::Never, b"abc"), Err(Refused::Never(sum)));
    assert_eq!(allowed(&ScriptPolicy::Pinned(vec![]), b"abc"), Err(Refused::NotPinned(sum)));
    assert_eq!(allowed(&ScriptPolicy::Pinned(vec![[0; 32], sum]), b"abc"), Ok(sum));
    assert!(allowed(&ScriptPolicy::Pinned(vec![sum]), b"abc\n").is_err());
    assert!(Refused::Never(sum).to_string().contains(&hex(&sum)));
}

#[test]
fn the_exit_status_is_passed_on() {
    for code in [0, 1, 7, 124, 255] {
        let (outcome, _) = run_text(format!("exit {code}"));
        assert_eq!((outcome, outcome.code()), (Outcome::Exited(code), code));
    }
    assert_eq!(run_text("").0, Outcome::Exited(0));
    assert_eq!(run_text("kill -9 $$").0, Outcome::Signaled(9));
    assert_eq!(run_text("kill -15 $$").0.code(), 128 + 15);
    assert_eq!(Outcome::Signaled(64).code(), 192);
}

#[test]
fn the_environment_is_a_path_and_nothing_else() {
    // The variables of this test itself (cargo's, for one) must not be there.
    assert!(std::env::vars().count() > 1);
    assert_eq!(said("tr '\\0' '\\n' </proc/$$/environ"), [format!("PATH={PATH}")]);
}

#[test]
fn it_starts_in_the_root_directory_with_a_private_umask() {
    assert_eq!(said("pwd; umask"), ["/", "0077"]);
}

#[test]
fn no_descriptor_is_inherited_but_the_script_itself() {
    let open = fs::File::open("/dev/null").unwrap();
    let _inheritable = crate::sys::script::inheritable(open.as_fd());
    let lines = said("for fd in /proc/$$/fd/*; do readlink $fd; done; true");
    // Shells keep the script open a second time while they read it.
    let (others, own): (Vec<_>, Vec<_>) = lines.iter().partition(|l| !l.contains("tap-rs-script"));
    let (pipes, others): (Vec<_>, Vec<_>) = others.into_iter().partition(|l| l.starts_with("pipe:"));
    assert!((1..=2).contains(&own.len()), "{lines:?}");
    assert_eq!(pipes.len(), 2, "{lines:?}");
    assert_eq!(pipes[0], pipes[1], "standard output and error are one pipe");
    assert_eq!(others, ["/dev/null"], "standard input, and nothing else: {lines:?}");
}

#[test]
fn the_text_cannot_be_changed_by_the_script() {
    let lines = said(
        "for fd in /proc/$$/fd/*; do case $(readlink $fd) in *tap-rs-script*) \
         (echo evil >>$fd) 2>/dev/null || echo refused; (: >$fd) 2>/dev/null || echo refused;; esac; done",
    );
    assert!(lines.len() >= 2 && lines.iter().all(|l| l == "refused"), "{lines:?}");
}

#[test]
fn its_session_and_group_are_its_own() {
    let lines = said("read -r _ _ _ ppid pgrp session rest </proc/$$/stat; echo $$ $pgrp $session");
    let ids: Vec<&str> = lines[0].split(' ').collect();
    assert!(ids[0] == ids[1] && ids[1] == ids[2], "{ids:?}");
}

#[test]
fn standard_input_is_empty() {
    assert_eq!(said("cat; echo end"), ["end"]);
}

#[test]
fn the_first_line_chooses_among_the_listed_interpreters() {
    assert_eq!(said("#!/bin/sh -e\necho $-")[0].replace(['s', 'h', 'B'], ""), "e");
    assert_eq!(said("#!/bin/bash\necho ${BASH_VERSION:+bash}"), ["bash"]);
    assert_eq!(said("#!/usr/bin/env bash\necho ${BASH_VERSION:+bash}"), ["bash"]);
    if Path::new("/usr/bin/perl").exists() {
        assert_eq!(said("#!/usr/bin/perl -w\nprint $^X, \"\\n\";"), ["/usr/bin/perl"]);
    }
}

#[test]
fn an_interpreter_off_the_list_is_not_started() {
    let dir = tempfile::tempdir().unwrap();
    let (evil, proof) = (dir.path().join("evil"), dir.path().join("proof"));
    fs::write(&evil, format!("#!/bin/sh\ntouch {}\n", proof.display())).unwrap();
    fs::set_permissions(&evil, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let text = format!("#!{}\n", evil.display());
    let script = Script { bytes: text.as_bytes(), limit: Duration::from_secs(5) };
    let error = alone(run_with(script, |_| ())).unwrap_err();
    assert!(
        matches!(error, ScriptError::Interpreter(_)) && error.to_string().contains("#!/bin/sh"),
        "{error}"
    );
    assert!(!proof.exists());
}

#[test]
fn a_missing_interpreter_is_named() {
    let interpreter = Interpreter { path: "/nonexistent/sh", argument: None };
    let error = alone(async {
        Group::start(&mut Command::new(interpreter.path), None, io::pipe().unwrap().1).err().unwrap()
    });
    assert!(error.to_string().contains("/nonexistent/sh does not start"), "{error}");
}

#[test]
fn at_the_limit_the_whole_group_is_stopped() {
    let start = std::time::Instant::now();
    let (outcome, said) = run_for(LIMIT, "sleep 60 & echo $!; sleep 60");
    assert_eq!((outcome, outcome.code()), (Outcome::TimedOut, 124));
    assert!(gone(&said[0]), "the background child is still there");
    assert!(start.elapsed() < LIMIT + GRACE, "TERM was enough");
}

#[test]
fn what_ignores_term_is_killed_two_seconds_later() {
    let start = std::time::Instant::now();
    let text = "trap '' TERM; sh -c 'sleep 60; sleep 60' & echo $!; while :; do sleep 60; done";
    let (outcome, said) = run_for(LIMIT, text);
    assert_eq!(outcome, Outcome::TimedOut);
    assert!((GRACE..GRACE * 10).contains(&(start.elapsed() - LIMIT)));
    assert!(gone(&said[0]));
}

#[test]
fn children_that_ignore_term_go_when_the_script_itself_went_at_once() {
    let text = "sh -c 'trap \"\" TERM; echo $$; while :; do sleep 60; done' & wait";
    let (outcome, said) = run_for(LIMIT, text);
    assert_eq!(outcome, Outcome::TimedOut);
    assert!(gone(&said[0]));
}

#[test]
fn a_script_may_still_clean_up_when_its_time_is_over() {
    let text = "trap 'echo cleaned; exit 0' TERM; while :; do sleep 0.05; done";
    let (outcome, said) = run_for(LIMIT, text);
    assert_eq!((outcome, said.last().unwrap().as_str()), (Outcome::TimedOut, "cleaned"));
}

#[test]
fn a_background_child_that_keeps_the_pipe_open_is_not_waited_for() {
    let start = std::time::Instant::now();
    let (outcome, said) = run_text("sleep 60 & echo $!");
    assert_eq!(outcome, Outcome::Exited(0));
    assert!(start.elapsed() < Duration::from_secs(40));
    assert!(running(&said[0]), "a clean exit leaves what the script started alone");
    kill(&said[0]);
}

#[test]
fn what_is_printed_just_before_the_end_is_seen() {
    // Half a second is enough unless others have the processors all the while.
    assert!((0..3).any(|_| said("(sleep 0.05; echo late) & echo early; exit 0") == ["early", "late"]));
}

#[test]
fn a_script_that_closes_its_output_is_still_awaited() {
    assert_eq!(run_text("exec >&- 2>&-; sleep 0.2; exit 3"), (Outcome::Exited(3), vec![]));
}

#[test]
fn a_dropped_run_takes_the_group_along() {
    let pid = Mutex::new(String::new());
    alone(async {
        let script = Script { bytes: b"sleep 60 & echo $!; wait", limit: Duration::from_secs(60) };
        let run = run_with(script, |line| line.clone_into(&mut pid.lock().unwrap()));
        let told = async {
            while pid.lock().unwrap().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! { _ = run => panic!("it ended"), () = told => {} }
    });
    assert!(gone(&pid.lock().unwrap()));
}

#[test]
fn binary_garbage_fails_and_says_nothing_dangerous() {
    let garbage: Vec<u8> = (0..4096u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for bytes in [&b"\x7fELF\x02\x01\x01\0\0\0"[..], &garbage, &[0u8; 512], &[0xff; 512]] {
        let (outcome, said) = run_text(bytes);
        assert!(outcome != Outcome::TimedOut, "{outcome:?}");
        assert!(said.iter().all(|l| !l.chars().any(char::is_control)), "{said:?}");
    }
}

#[test]
fn huge_output_is_read_to_the_end_and_mostly_not_shown() {
    let (outcome, said) =
        run_text("head -c 20000000 /dev/zero | tr '\\0' 'a'; echo; yes | head -n 1000000; exit 4");
    assert_eq!(outcome, Outcome::Exited(4));
    assert!(said.iter().map(String::len).sum::<usize>() < 80_000);
    assert!(said.last().unwrap().contains("more bytes of output"));
}

#[test]
fn endless_output_does_not_keep_the_limit_from_coming() {
    assert_eq!(run_for(Duration::from_millis(300), "yes").0, Outcome::TimedOut);
}
