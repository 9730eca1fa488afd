//! Event streams by the server of others that people use for them: sse-starlette, under hypercorn.

use std::time::Duration;

use portolan_http::{Client, Version};
use portolan_sse::{EventSource, Options, State};
use portolan_testbed::{Service, free_port, record};

const PACKAGES: &str = "pip:sse-starlette starlette hypercorn";
const PYTHON: &str = "/opt/portolan-testbed/sse-starlette/bin/python";

#[tokio::test]
async fn events_are_followed_over_connections_that_end_until_the_server_has_no_more() {
    let port = free_port();
    let server = Service::new(PACKAGES, PYTHON)
        .file("events.py", include_str!("events.py"))
        .args(["-u", "$D/events.py", &port.to_string()])
        .accepts(([127, 0, 0, 1], port).into())
        .start();
    let Some(server) = server else { return };
    let log = server.log();
    let name = log.lines().find(|line| line.starts_with("sse-starlette")).unwrap();
    for (version, said) in [(Version::Http1Only, "HTTP/1.1"), (Version::Http2Only, "HTTP/2")] {
        let client = Client::builder().version(version).build().unwrap();
        let options = Options::new().min_wait(Duration::from_millis(1));
        let mut source = EventSource::get(&client, format!("http://127.0.0.1:{port}/events"), options).unwrap();
        for number in 1..=6 {
            let event = source.recv().await.unwrap().unwrap();
            assert_eq!((event.name.as_str(), &*event.id), ("tick", number.to_string().as_str()));
            assert_eq!(event.data, format!("line {number}\nand another"));
        }
        assert_eq!(source.recv().await.unwrap(), None);
        assert_eq!(source.state(), State::Closed);
        record("sse", "exchange", name, &format!("{said}, reconnecting twice"), 6);
    }
}
