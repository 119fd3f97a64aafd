//! Scripts and hooks: what others run.

use super::*;

#[test]
fn script_policy_is_complete_or_refused() {
    let fixture = Fixture::new();
    let remote = |key: &str| at_top(&format!("use_remote_config = true\n{key}"), CLIENT);
    let pinned = remote(&format!("script = \"pinned\"\nscript_sha256 = [\"{}\"]", "0a".repeat(32)));
    assert_eq!(fixture.client(&pinned).script, ScriptPolicy::Pinned(vec![[10; 32]]));
    assert!(fixture.warnings(&remote("script = \"any\"")).contains("is root on this client"));
    for (bad, words) in [
        ("script = \"pinned\"", "needs script_sha256"),
        ("script = \"pinned\"\nscript_sha256 = [\"00\"]", "64 hex digits"),
        ("script_sha256 = []", "write script = \"pinned\" too"),
        ("script = \"allways\"", "write \"never\" or \"pinned\" or \"any\""),
        ("script_timeout = 0", "1 to 3600"),
        ("script_timeout = 3601", "1 to 3600"),
    ] {
        let errors = fixture.errors(&remote(bad));
        assert!(errors.contains(words), "{bad}: {errors}");
    }
}

#[test]
fn scripts_are_files_that_fit() {
    let fixture = Fixture::new();
    let with = |script: &str| format!("{SERVER}script_path = \"{script}\"\n{NIC}");
    let file =
        |name: &str, size: usize| std::fs::write(fixture.folder.path().join(name), vec![b'x'; size]).unwrap();
    file("empty", 0);
    let room = PUSH_MAX - 8 - 43 - 18;
    file("fits", room);
    file("tight", room + 1);
    file("long", PUSH_MAX + 1);
    assert_eq!(fixture.server(&with("fits")).clients[0].script.as_ref().map(|s| s.len()), Some(room));
    for (name, words) in [
        ("empty", "is empty"),
        ("tight", "there is room for"),
        ("long", "longer than"),
        (".", "not a regular file"),
        ("none", "cannot read the script"),
    ] {
        let errors = fixture.errors(&with(name));
        assert!(errors.starts_with("f.toml:8:15: ") && errors.contains(words), "{errors}");
    }
}

#[test]
fn a_hook_is_a_program_that_nobody_else_can_change() {
    use std::os::unix::fs::PermissionsExt as _;
    let fixture = Fixture::new();
    let with = |line: &str| format!("{CLIENT}{NIC}[hooks]\n{line}\n");
    let path = fixture.folder.path().join("hook.sh");
    std::fs::write(&path, "#!/bin/sh\n").unwrap();
    let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(0o755);
    let Config::Client(c) = fixture.load(&with("up = \"hook.sh\"\ntimeout = 5")).unwrap().0 else { panic!() };
    assert_eq!(c.common.hooks.program(Hook::Up), Some(path.as_path()));
    assert_eq!((c.common.hooks.program(Hook::Down), c.common.hooks.timeout.as_secs()), (None, 5));
    for (bad, line, why) in [
        (0o775, "up = \"hook.sh\"", "chmod go-w"),
        (0o644, "up = \"hook.sh\"", "chmod +x"),
        (0o755, "up = \"nowhere.sh\"", "No such file"),
        (0o755, "up = \"/\"", "is no file"),
        (0o755, "verify = \"hook.sh\"", "asked on a server"),
        (0o755, "timeout = 61", "1 to 60"),
    ] {
        mode(bad);
        let said = fixture.errors(&with(line));
        assert!(said.contains(why), "{line}: {said}");
    }
}
