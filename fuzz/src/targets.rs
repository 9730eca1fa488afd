//! Written by `cargo xtask sync` from protocols.toml.

crate::targets! {
    codec redis = portolan_db::redis::RespCodec::default;
    datagram dns = portolan_dns::dns::decode;
    codec dns_tcp = portolan_dns::dns::Framing::default;
    codec smtp = portolan_mail::smtp::SmtpCodec::default;
    datagram known_hosts = portolan_remote_access::ssh::KnownHosts::decode;
    codec lines = crate::fuzzed_lines;
    datagram ber = crate::fuzzed_ber;
    datagram xdr = crate::fuzzed_xdr;
    free hops = crate::fuzzed_hops;
    free hpack = crate::fuzzed_hpack;
    free qpack = crate::fuzzed_qpack;
    free http2 = crate::fuzzed_http2;
    free http1 = crate::fuzzed_http1;
    codec websocket = crate::fuzzed_websocket_decoder;
    codec sse = portolan_sse::Decoder::default;
    codec grpc = crate::fuzzed_grpc_frames;
    codec grpc_values = crate::fuzzed_grpc_values;
    datagram grpc_log = crate::fuzzed_grpc_log;
    datagram path_template = crate::fuzzed_path_template;
    datagram structured = portolan_http::structured::Dictionary::decode;
    free http3 = crate::fuzzed_http3;
}
