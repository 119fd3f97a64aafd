//! One end of a tunnel: a worker, a socket on the loopback device, and a NIC that is really a socket pair.

use super::*;

/// One end: a worker, and what stands at its other sides.
pub struct End {
    pub worker: WorkerHandle,
    pub notices: mpsc::Receiver<Notice>,
    pub addr: SocketAddr,
    /// The far end of the NIC's queue: the kernel's side of it.
    pub wire: UnixDatagram,
    pub nic: Arc<NicCounters>,
    /// Lanes that the worker has not got.
    pub lanes: Lanes,
    /// The session that the worker receives on.
    pub index: u32,
}

pub fn path(to: SocketAddr) -> Path {
    Path::new(to, None)
}

pub fn keys(side: Side) -> Keys {
    let (send, receive, local_index, remote_index) = match side {
        Side::Client => (1, 2, 10, 20),
        Side::Server => (2, 1, 20, 10),
    };
    let (send, receive) = ([send; 32].into(), [receive; 32].into());
    Keys { suite: Suite::Aes, send, receive, local_index, remote_index }
}

pub fn contract() -> Box<Contract> {
    let addrs = vec![NIC4.to_string().parse().unwrap()];
    let mtu = 1500.try_into().unwrap();
    let spec = NicSpec { name: "nic0".parse().unwrap(), mac: NIC, addrs, mtu };
    Box::new(Contract::new(&spec, NicRules::default()))
}

impl End {
    pub fn new(side: Side, offloads: Offloads) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
        let addr = socket.local_addr().unwrap();
        let (sender, notices) = mpsc::channel(64);
        let worker = spawn(socket, &WorkerConfig::new(side, "test-worker"), sender).unwrap();
        let (wire, queue) = UnixDatagram::pair().unwrap();
        queue.set_nonblocking(true).unwrap();
        wire.set_read_timeout(Some(PATIENCE)).unwrap();
        let (mut lanes, opener) = establish(&keys(side), Arc::new(Activity::new(Instant::now()))).unwrap();
        let nic = Arc::new(NicCounters::default());
        let index = opener.index();
        let command = |c| worker.send(c).unwrap();
        command(Command::AddPeer(PEER));
        command(Command::AddNic {
            key: QUEUE,
            peer: PEER,
            id: ID,
            queue: Queue::stand_in(queue.into(), offloads),
            reads: true,
            contract: contract(),
            counters: Arc::clone(&nic),
            reply_arp: true,
        });
        let lane = lanes.take().unwrap();
        command(Command::Install { peer: PEER, opener, lane });
        Self { worker, notices, addr, wire, nic, lanes, index }
    }

    pub fn pair() -> (Self, Self) {
        let (client, server) =
            (Self::new(Side::Client, Offloads::TCP_UDP), Self::new(Side::Server, Offloads::TCP_UDP));
        client.use_session(server.addr);
        server.use_session(client.addr);
        (client, server)
    }

    pub fn use_session(&self, to: SocketAddr) {
        self.do_(Command::Use { peer: PEER, index: self.index, path: path(to), datagram: 1472 });
    }

    pub fn do_(&self, command: Command) {
        self.worker.send(command).unwrap();
    }

    /// The kernel hands a frame to the queue.
    pub fn put(&self, vnet: VnetHeader, frame: &[u8]) {
        self.wire.send(&[&vnet.to_bytes()[..], frame].concat()).unwrap();
    }

    /// What the worker has written to the queue.
    pub fn take(&self) -> (VnetHeader, Vec<u8>) {
        let mut room = vec![0; MAX_FRAME + VnetHeader::LEN];
        let n = self.wire.recv(&mut room).unwrap();
        let (vnet, frame) = room[..n].split_first_chunk().unwrap();
        (VnetHeader::from_bytes(vnet), frame.to_vec())
    }

    /// The payload of a super-frame, which comes in runs where the worker was interrupted between its datagrams.
    pub fn take_payload(&self, header: u16, len: usize) -> Vec<u8> {
        let mut payload = Vec::new();
        while payload.len() < len {
            payload.extend(&self.take().1[usize::from(header)..]);
        }
        payload
    }

    pub fn notice(&mut self) -> Notice {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.notices.try_recv() {
                Ok(notice) => return notice,
                Err(_) => assert!(Instant::now() < deadline, "no notice came"),
            }
            std::thread::yield_now();
        }
    }

    pub fn counters(&self) -> &WorkerCounters {
        self.worker.counters()
    }

    pub fn await_that(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < deadline, "{what} did not happen");
            std::thread::yield_now();
        }
    }

    /// Seals these datagrams as the peer's control plane would, on a lane of its own, and sends them from `socket`.
    pub fn send_as_peer(lanes: &mut Lanes, socket: &UdpSocket, to: SocketAddr, plaintexts: &[Vec<u8>]) {
        let mut lane = lanes.take().unwrap();
        for plaintext in plaintexts {
            let mut d = vec![0; datagram::DATA_HEADER_LEN];
            d.extend(plaintext);
            d.extend([0; 16]);
            lane.seal(&mut d).unwrap();
            socket.send_segments(&path(to), &d, 2000).unwrap();
        }
    }
}
