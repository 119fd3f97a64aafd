//! What each stage of the data path costs, for a frame of each size, and what a handshake costs a server.
//!
//! ```text
//! cargo bench --bench stages              everything; as root, for the stages that are system calls
//! cargo bench --bench stages -- seal      only what has this in its name
//! cargo bench --bench stages -- --test    each once, to see that it works
//! ```
//! The figures of a frame of 61,900 bytes are of the whole super-frame, 43 datagrams. They tell where the time goes;
//! what the kernel does on the far side of a system call, with other threads, is in none of them: for that there is
//! `benches/peers.py`.

#[path = "../common/mod.rs"]
mod common;
mod frames;
mod handshake;
mod kernel;

fn main() {
    if !kernel::enter() {
        println!("SKIPPED (needs root): read, write, send, recv");
    }
    divan::main();
}
