use super::*;

#[test]
fn the_drawing_fits_80_columns_of_ascii() {
    assert!(DRAWING.is_ascii() && DRAWING.lines().all(|line| line.len() <= 80));
    for nic in &NICS {
        assert!(
            DRAWING.contains(nic.on_client) && DRAWING.contains(&format!("{:8}{}", nic.on_server, nic.ip))
        );
    }
}

#[test]
fn figures_have_units_that_suit_them() {
    assert_eq!(span(Duration::from_micros(41)), "41 us");
    assert_eq!(span(Duration::from_micros(1234)), "1.2 ms");
    assert_eq!(span(Duration::from_millis(2500)), "2.5 s");
    assert_eq!((rate(11.44e9).trim(), rate(94.4e6).trim()), ("11.44 Gbit/s", "94 Mbit/s"));
    let times = [3, 1, 2].map(Duration::from_millis);
    assert_eq!(proof::spread(&times), ["1.0 ms", "2.0 ms", "3.0 ms"]);
    assert_eq!(proof::spread(&[]), ["-", "-", "-"]);
}

#[test]
fn the_keys_directory_is_private_and_goes_with_its_guard() {
    use std::os::unix::fs::PermissionsExt;
    let cast = Cast::dress().unwrap();
    let dir = cast.papers().to_owned();
    assert_eq!(dir.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    for name in ["server.key", "client.key", "server.toml", "client.toml"] {
        assert_eq!(dir.join(name).metadata().unwrap().permissions().mode() & 0o077, 0, "{name}");
    }
    for name in ["server.toml", "client.toml"] {
        let (_, warnings) = crate::config::load(&dir.join(name), &Default::default()).unwrap();
        assert!(warnings.is_empty(), "{name}: {warnings:?}");
    }
    drop(cast);
    assert!(!dir.exists());
}

/// The stage without a tunnel, where root can build it: what the proofs say of a wire that is not sealed.
#[test]
fn the_stage_stands_and_a_capture_of_plaintext_says_so() {
    if std::thread::spawn(new_netns).join().unwrap().is_err() {
        let _ = io::Write::write_all(
            &mut io::stderr(),
            b"SKIPPED (needs root): the_stage_stands_and_a_capture_of_plaintext_says_so\n",
        );
        return;
    }
    let stage = Stage::build().unwrap();
    assert!(stage.is_bare().unwrap());
    let ping = stage.client.inside(|| crate::runtime::ping::Pinger::new(SERVER)).unwrap();
    assert!(ping.unwrap().until_answered(PATIENCE).unwrap().is_some());

    let capture = Capture::start(&stage.server, "wan0").unwrap();
    let there = std::net::SocketAddr::new(SERVER, PORT);
    // Somebody there, or the kernel would send the text back as unreachable.
    let _receiver = stage.server.inside(move || std::net::UdpSocket::bind(there)).unwrap().unwrap();
    let socket = stage.client.inside(|| std::net::UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
    for text in ["nothing to see", "a secret, and a secret", "nothing to see"] {
        socket.send_to(text.as_bytes(), there).unwrap();
    }
    let seen = capture.finish(b"secret").unwrap();
    assert_eq!((seen.datagrams, seen.hits, seen.missed), (3, 2, 0));
    let screen = Screen::of_stdout();
    let lan = Seen { datagrams: 0, bytes: 1, hits: 9, missed: 0 };
    assert!(sealed(&screen, &seen, &lan).is_err());
    assert!(sealed(&screen, &Seen { hits: 0, ..seen }, &lan).is_ok());
}

#[test]
fn a_stop_ends_every_wait() {
    let stop = Stop::default();
    assert_eq!(stop.until(|| Ok(Some(7))).unwrap(), Some(7));
    stop.0.store(true, Relaxed);
    assert!(matches!(stop.until(|| Ok(None::<()>)), Err(DemoError::Stopped)));
    assert_eq!(DemoError::Stopped.status(), 130);
}
