//! The opening handshake, without I/O: what is asked, and what makes of the answer.

pub(crate) mod head;
mod proof;
mod request;
mod server;
mod verify;

pub use request::Request;
pub use server::{accept, accept_extended};
pub use verify::{Agreed, Rejected};

/// What the server adds to the key before it takes the digest (RFC 6455 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The answer to a key (RFC 6455 4.2.2).
pub(crate) fn accept_key(key: &[u8]) -> String {
    use base64::Engine;
    use sha1::Digest;
    let digest = sha1::Sha1::new().chain_update(key).chain_update(GUID).finalize();
    base64::engine::general_purpose::STANDARD.encode(digest)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_example_of_the_rfc_is_answered_right() {
        assert_eq!(super::accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
