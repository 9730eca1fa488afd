//! AUTH (RFC 4954): SASL in base64 lines.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use portolan_core::{Error, Kind, Result};
use portolan_wire::sasl::{self, Allow, ChannelBinding, Identity, Mechanism};

use super::PROTOCOL;
use super::client::Client;
use super::options::Options;
use super::reply::Reply;

/// Rounds of one login: SCRAM needs three, a server that goes on asking is playing.
const MAX_ROUNDS: usize = 8;

/// Logs in by the strongest mechanism that both sides have.
pub(super) async fn run(client: &mut Client, options: &Options) -> Result<()> {
    let Some(login) = options.login() else { return Ok(()) };
    let offered = client.extensions().auth.clone();
    if offered.is_empty() {
        return Err(auth("the server offers no login here; many do so only after STARTTLS"));
    }
    let stream = client.talk.stream();
    let (tls, binding) = (stream.is_tls(), ChannelBinding::of(stream));
    let identity = if options.is_token() {
        let to = options.endpoint();
        Identity::token(&login.user, login.password.clone()).at(to.host_text(), to.port())
    } else {
        Identity::password(&login.user, login.password.clone())
    };
    let mut mechanism = sasl::choose(offered.iter().map(String::as_str), &identity, &allowed(options)?, tls, &binding)
        .map_err(named)?;
    let mut line = format!("AUTH {}", mechanism.mechanism().name());
    if let Some(first) = mechanism.initial().map_err(named)? {
        // RFC 4954 4: an empty initial response is written as =.
        let first = if first.is_empty() { "=".to_owned() } else { STANDARD.encode(first) };
        line.push(' ');
        line.push_str(&first);
    }
    for _ in 0..MAX_ROUNDS {
        let reply = client.talk.call(&line).await?;
        if reply.code == 235 {
            return mechanism.finish(None).map_err(named);
        }
        if reply.code != 334 {
            return Err(refused(reply, mechanism.refusal()));
        }
        let challenge = STANDARD
            .decode(reply.text().trim())
            .map_err(|_| Error::protocol(PROTOCOL, "expected a challenge in base64"))?;
        line = match mechanism.step(&challenge) {
            Ok(answer) => STANDARD.encode(answer.unwrap_or_default()),
            Err(error) => {
                // RFC 4954 4: a lone star takes the login back, so that the server does not wait for the rest.
                client.talk.call("*").await?;
                return Err(named(error));
            }
        };
    }
    Err(auth("the server asks without end"))
}

fn allowed(options: &Options) -> Result<Allow> {
    let mut list = Vec::new();
    for name in options.allowed_mechanisms() {
        let mechanism =
            Mechanism::parse(name).ok_or_else(|| Error::usage(format!("no mechanism called {name:?} is done here")))?;
        list.push(mechanism);
    }
    let allow = if list.is_empty() { Allow::default() } else { Allow::only(list) };
    Ok(if options.clear_auth() { allow.dangerous().cleartext_without_tls() } else { allow })
}

fn refused(reply: Reply, refusal: Option<&str>) -> Error {
    let words = reply.text();
    let error = reply.into_error().with_kind(Kind::Auth);
    match refusal {
        Some(json) => error.with_source(auth(&format!("{words}: {json}"))),
        None => error,
    }
}

fn auth(message: &str) -> Error {
    Error::new(Kind::Auth, message).with_protocol(PROTOCOL)
}

fn named(error: Error) -> Error {
    error.with_protocol(PROTOCOL)
}
