//! Written by `cargo xtask sync` from protocols.toml.

crate::targets! {
    codec redis = portolan_db::redis::RespCodec::default;
    datagram dns = portolan_dns::dns::decode;
    codec dns_tcp = portolan_dns::dns::Framing::default;
    codec smtp = portolan_mail::smtp::SmtpCodec::default;
    codec lines = crate::fuzzed_lines;
    datagram ber = crate::fuzzed_ber;
    datagram xdr = crate::fuzzed_xdr;
    free hpack = crate::fuzzed_hpack;
    free qpack = crate::fuzzed_qpack;
    free http2 = crate::fuzzed_http2;
}
