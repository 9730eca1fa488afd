//! What a server can be asked: server reflection, `grpc.reflection.v1` and its elder `v1alpha`.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use portolan_core::{Delivery, Error, Kind, Result};

use crate::PROTOCOL;
use crate::call::Duplex;
use crate::client::{Client, Method};
use crate::codec_prost::Prost;
use crate::status::{Code, Status};
use crate::transport::Transport;

/// Files that one service may be spread over, with all they import.
const MAX_FILES: usize = 4096;
/// Bytes that all of them may have.
const MAX_BYTES: usize = 64 << 20;

#[derive(Clone, PartialEq, prost::Message)]
struct Request {
    #[prost(string, tag = "1")]
    host: String,
    #[prost(oneof = "Ask", tags = "3, 4, 7")]
    ask: Option<Ask>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Ask {
    #[prost(string, tag = "3")]
    FileByName(String),
    #[prost(string, tag = "4")]
    FileContaining(String),
    #[prost(string, tag = "7")]
    List(String),
}

#[derive(Clone, PartialEq, prost::Message)]
struct Reply {
    #[prost(oneof = "Answer", tags = "4, 6, 7")]
    answer: Option<Answer>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Answer {
    #[prost(message, tag = "4")]
    Files(Files),
    #[prost(message, tag = "6")]
    Services(Services),
    #[prost(message, tag = "7")]
    Error(Refusal),
}

#[derive(Clone, PartialEq, prost::Message)]
struct Files {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    files: Vec<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Services {
    #[prost(message, repeated, tag = "1")]
    services: Vec<Named>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Refusal {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

/// As much of a file's descriptor as its own reading needs.
#[derive(Clone, PartialEq, prost::Message)]
struct File {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, repeated, tag = "3")]
    imports: Vec<String>,
}

type Codec = Prost<Request, Reply>;

/// The paths of both versions, the newer first.
const PATHS: [&str; 2] = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// Asks a server for its services and their descriptors.
///
/// ```no_run
/// # async fn example(client: portolan_grpc::Client<portolan_grpc::Channel>) -> portolan_core::Result<()> {
/// let reflection = portolan_grpc::reflection::Reflection::new(client);
/// for service in reflection.services().await? {
///     println!("{service}: {} files", reflection.files(&service).await?.len());
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Reflection<T> {
    client: Client<T>,
}

impl<T: Transport> Reflection<T> {
    /// Asks by this client.
    pub fn new(client: Client<T>) -> Self {
        Self { client }
    }

    /// The names of the server's services, with their packages.
    pub async fn services(&self) -> Result<Vec<String>> {
        let (_, answer) = self.begin(Ask::List(String::new())).await?;
        match answer {
            Answer::Services(services) => Ok(services.services.into_iter().map(|one| one.name).collect()),
            _ => Err(out_of_turn()),
        }
    }

    /// The descriptor (`google.protobuf.FileDescriptorProto`) of the file that defines `symbol` and of all that it imports, each
    /// once, imports before what imports them.
    pub async fn files(&self, symbol: &str) -> Result<Vec<Bytes>> {
        let (mut call, answer) = self.begin(Ask::FileContaining(symbol.to_owned())).await?;
        let mut known = Known::default();
        known.take(answer)?;
        while let Some(name) = known.missing.pop() {
            if !known.files.contains_key(&name) {
                let answer = ask(&mut call, Ask::FileByName(name.clone())).await?;
                known.take(answer)?;
                if !known.files.contains_key(&name) {
                    return Err(broken("a file that is not the one asked for"));
                }
            }
        }
        Ok(known.in_order())
    }

    /// Asks the first question, by the newest version that the server knows.
    async fn begin(&self, first: Ask) -> Result<(Duplex<Codec>, Answer)> {
        let mut last = None;
        for path in PATHS {
            let mut call = self.client.duplex(&Method::from_static(path, Codec::new())).await?;
            match ask(&mut call, first.clone()).await {
                Ok(answer) => return Ok((call, answer)),
                Err(error) if Status::of(&error).code() == Code::Unimplemented => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(out_of_turn))
    }
}

async fn ask(call: &mut Duplex<Codec>, ask: Ask) -> Result<Answer> {
    // Where the call is over already, its status says why.
    let sent = call.send(&Request { host: String::new(), ask: Some(ask) }).await;
    let reply = match (call.message().await?, sent) {
        (Some(reply), Ok(())) => reply,
        (_, Err(error)) => return Err(error),
        (None, Ok(())) => return Err(broken("the server ended without an answer")),
    };
    match reply.answer {
        Some(Answer::Error(refusal)) => {
            Err(Status::new(Code::from_number(refusal.code.into()), refusal.message).into())
        }
        Some(answer) => Ok(answer),
        None => Err(out_of_turn()),
    }
}

fn out_of_turn() -> Error {
    broken("an answer to another question")
}

fn broken(what: &'static str) -> Error {
    Error::protocol(PROTOCOL, format!("reflection: {what}")).with_delivery(Delivery::Answered)
}

/// The files that have come.
#[derive(Default)]
struct Known {
    files: HashMap<String, (Bytes, Vec<String>)>,
    missing: Vec<String>,
    bytes: usize,
}

impl Known {
    fn take(&mut self, answer: Answer) -> Result<()> {
        let Answer::Files(files) = answer else { return Err(out_of_turn()) };
        for bytes in files.files {
            let file = <File as prost::Message>::decode(bytes.clone())
                .map_err(|error| broken("a descriptor that is none").with_source(error))?;
            self.bytes = self.bytes.saturating_add(bytes.len());
            if self.files.len() >= MAX_FILES || self.bytes > MAX_BYTES {
                let error = Error::new(Kind::Limit, "reflection: too many files").with_delivery(Delivery::Answered);
                return Err(error.with_protocol(PROTOCOL));
            }
            self.missing.extend(file.imports.iter().filter(|name| !self.files.contains_key(*name)).cloned());
            self.files.insert(file.name, (bytes, file.imports));
        }
        Ok(())
    }

    /// Imports before what imports them. Without recursion: how deep they go is the server's choice.
    fn in_order(mut self) -> Vec<Bytes> {
        let mut order = Vec::with_capacity(self.files.len());
        let mut seen = HashSet::new();
        let mut names: Vec<String> = self.files.keys().cloned().collect();
        names.sort_unstable();
        let mut stack: Vec<(String, bool)> = names.into_iter().map(|name| (name, false)).collect();
        while let Some((name, done)) = stack.pop() {
            if done {
                order.extend(self.files.remove(&name).map(|(bytes, _)| bytes));
            } else if seen.insert(name.clone()) {
                let imports = self.files.get(&name).map(|(_, imports)| imports.clone()).unwrap_or_default();
                stack.push((name, true));
                stack.extend(imports.into_iter().map(|name| (name, false)));
            }
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    fn file(name: &str, imports: &[&str]) -> Bytes {
        let imports = imports.iter().map(|name| (*name).to_owned()).collect();
        File { name: name.to_owned(), imports }.encode_to_vec().into()
    }

    #[test]
    fn files_come_after_what_they_import_even_in_a_circle() {
        let (a, b, c) = (file("a", &["b", "c"]), file("b", &["c"]), file("c", &[]));
        let mut known = Known::default();
        known.take(Answer::Files(Files { files: vec![a.clone(), c.clone(), b.clone()] })).unwrap();
        assert_eq!(known.in_order(), [c, b, a]);
        let mut circle = Known::default();
        circle.take(Answer::Files(Files { files: vec![file("a", &["b"]), file("b", &["a"])] })).unwrap();
        assert_eq!(circle.in_order().len(), 2);
    }

    #[test]
    fn a_server_that_never_ends_is_left() {
        let mut known = Known::default();
        let files = (0..=MAX_FILES).map(|n| file(&n.to_string(), &[])).collect();
        assert_eq!(known.take(Answer::Files(Files { files })).unwrap_err().kind(), Kind::Limit);
    }
}
