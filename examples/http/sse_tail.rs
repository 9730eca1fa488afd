//! Follows a stream of events, and comes back when it breaks: `cargo run --example sse_tail -- URL [LAST-EVENT-ID]`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example talks to its user")]

use portolan_core::{Error, Result};
use portolan_http::Client;
use portolan_sse::{EventSource, Options};

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let url = args.next().ok_or_else(|| Error::usage("usage: sse_tail URL [LAST-EVENT-ID]"))?;
    let mut options = Options::new();
    if let Some(id) = args.next() {
        options = options.last_event_id(id);
    }
    let mut events = EventSource::get(&Client::new(), &url, options)?;
    while let Some(event) = events.recv().await? {
        println!("{} [{}] {}", event.name, event.id, event.data);
    }
    eprintln!("the server says that there will be no more");
    Ok(())
}
