//! Mini against FILL IN: the program and its version.

use portolan_classic::mini::{Client, Options};
use portolan_core::{Connector, Endpoint};
use portolan_tests::{Server, Spec, free_port, record};

fn start() -> Option<(Server, Endpoint)> {
    let port = free_port();
    // FILL IN: the Debian package, its program and arguments; name the package under `install` in protocols.toml too.
    let args = vec!["--port".to_owned(), port.to_string()];
    let spec = Spec { package: "mini-server", binary: "mini-server", files: vec![], args };
    let server = Server::start(&spec)?.accepting(([127, 0, 0, 1], port).into());
    Some((server, Endpoint::new("127.0.0.1", port).unwrap()))
}

#[tokio::test]
async fn the_real_server_answers() {
    let Some((_server, endpoint)) = start() else { return };
    let mut client = Client::connect(&Connector::default(), Options::new(endpoint)).await.unwrap();
    assert_eq!(client.ask("hello").await.unwrap().text, "FILL IN: what it says");
    client.close().await.unwrap();
    record("mini", "exchange", "FILL IN: program and version, asked of it", "plain", 1);
}
