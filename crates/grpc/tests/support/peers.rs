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
