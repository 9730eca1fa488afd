//! Servers of other implementations, from the folder where the testbed is installed.

use std::path::Path;

use portolan_testbed::{Certs, Server, Service, find, free_port};

/// Where the testbed's Python environments and node modules are.
const TESTBED: &str = "/opt/portolan-testbed";

/// A running server, how to reach it, and whose certificates it has.
pub(crate) struct Peer {
    pub(crate) url: String,
    pub(crate) certs: Option<Certs>,
    pub(crate) name: String,
    _server: Server,
}

fn start(service: Service, tls: bool) -> Option<Peer> {
    let certs = tls.then(Certs::new);
    let port = free_port();
    let protos = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/protos");
    let mut service = service.arg(port.to_string()).arg(protos.display().to_string()).says("grpc");
    if let Some(certs) = &certs {
        service = service.tls(certs).args(["server.pem", "server.key"]);
    }
    let server = service.start()?;
    let name = server.log().lines().find(|line| line.starts_with("grpc")).unwrap_or_default().to_owned();
    let scheme = if tls { "https" } else { "http" };
    Some(Peer { url: format!("{scheme}://127.0.0.1:{port}"), certs, name, _server: server })
}

fn script(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers").join(name).display().to_string()
}

/// grpcio.
pub(crate) fn python(tls: bool) -> Option<Peer> {
    let package = "pip:grpcio grpcio-tools grpcio-reflection grpcio-health-checking grpcio-status";
    let python = format!("{TESTBED}/grpcio/bin/python");
    start(Service::new(package, python).args(["-u", &script("interop_server.py")]), tls)
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
