//! russh's errors as the workspace's.

use portolan_core::{Error, Kind, Phase};

use super::NAME;

/// What a session ends with.
#[derive(Debug)]
pub(super) struct Fault(pub(super) Error);

impl From<russh::Error> for Fault {
    fn from(error: russh::Error) -> Self {
        Self(told(error))
    }
}

/// Says who broke what.
pub(super) fn told(error: russh::Error) -> Error {
    use russh::Error as E;
    let told = match error {
        E::IO(error) => Error::io(Phase::Hop, error),
        E::Disconnect | E::HUP | E::RecvError | E::SendError => Error::closed("the server closed the connection"),
        E::Version => Error::protocol(NAME, "expected a line of SSH-2.0, saw another or too many"),
        E::KeepaliveTimeout | E::InactivityTimeout => {
            Error::new(Kind::Timeout, "the server no longer answers").with_phase(Phase::Idle)
        }
        E::NoCommonAlgo { kind, ours, theirs } => {
            let (ours, theirs) = (shown(&ours), shown(&theirs));
            let message = format!("no common algorithm ({kind:?}): we have {ours}, the server {theirs}");
            Error::new(Kind::Unsupported, message)
        }
        E::NoAuthMethod => Error::new(Kind::Auth, "the server takes no login of any kind"),
        E::WrongServerSig | E::Signature(_) => Error::protocol(NAME, "the host does not hold the key that it showed"),
        E::Join(error) => Error::closed("the session stopped").with_source(error),
        other => Error::protocol(NAME, other.to_string()),
    };
    told.with_protocol(NAME)
}

/// A list of the peer's, as much of it as a message holds.
fn shown(names: &[String]) -> String {
    let text = names.join(",");
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}
