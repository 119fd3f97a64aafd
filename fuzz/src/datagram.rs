//! The five datagrams: what is read is what was written, and a length that is not the type's is refused.

use tap_rs::wire::datagram::{
    COOKIE_DATAGRAM_LEN, Cookie, DataHeader, HELLO_LEN, HandshakePayload, Header, Hello, INIT_LEN, Init,
    NOISE_PAYLOAD_LEN, RESP_LEN, Resp, Type,
};

/// Runs one input.
pub fn run(data: &[u8]) {
    if let Some(payload) = data.first_chunk::<NOISE_PAYLOAD_LEN>() {
        let read = HandshakePayload::decode(payload);
        assert_eq!(HandshakePayload::decode(&read.encode()), read);
    }
    let mut copy = data.to_vec();
    let split = DataHeader::split(&mut copy).map(|(header, sealed)| (header, sealed.len()));
    let Ok(header) = Header::decode(data) else {
        assert!(split.is_err());
        return;
    };
    assert_eq!(split.is_ok(), header.kind == Type::Data);
    let mac = |_: &[u8]| *data.last_chunk().expect("every datagram is longer than a MAC");
    match header.kind {
        Type::Hello => {
            let d: &[u8; HELLO_LEN] = data.try_into().expect("its length");
            if let Ok((hello, signed, m)) = Hello::decode(d) {
                assert_eq!(hello.encode(mac), *d);
                assert_eq!([signed, m].concat(), data);
            }
        }
        Type::Cookie => {
            let d: &[u8; COOKIE_DATAGRAM_LEN] = data.try_into().expect("its length");
            if let Ok(cookie) = Cookie::decode(d) {
                assert_eq!(cookie.encode(), *d);
            }
        }
        Type::Init => {
            let d: &[u8; INIT_LEN] = data.try_into().expect("its length");
            if let Ok((init, signed, m)) = Init::decode(d) {
                assert_eq!(init.encode(mac), *d);
                assert_eq!([signed, m].concat(), data);
            }
        }
        Type::Resp => {
            let d: &[u8; RESP_LEN] = data.try_into().expect("its length");
            if let Ok((resp, signed, m)) = Resp::decode(d) {
                assert_eq!(resp.encode(mac), *d);
                assert_eq!([signed, m].concat(), data);
            }
        }
        Type::Data => {
            let Ok((header, sealed)) = split else { unreachable!() };
            assert_eq!(header.encode()[..], data[..16]);
            assert_eq!(sealed, data.len() - 16);
            assert_eq!(DataHeader::receiver_index(data), Ok(header.receiver_index));
        }
    }
}
