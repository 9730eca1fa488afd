//! Written by `cargo xtask sync` from protocols.toml.

crate::targets! {
    codec redis = portolan_db::redis::RespCodec::default;
    datagram dns = portolan_dns::dns::decode;
    codec dns_tcp = portolan_dns::dns::Framing::default;
    codec smtp = portolan_mail::smtp::SmtpCodec::default;
    codec lines = crate::fuzzed_lines;
}
