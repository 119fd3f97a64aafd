#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tap_rs_fuzz::netlink::run(data));
