//! Services as code.

use std::fmt::Write;

use prost_build::{Comments, Method, Service, ServiceGenerator};
use prost_types::method_options::IdempotencyLevel;

/// Names that a client has for itself.
const TAKEN: &[&str] = &["new", "client"];

/// Writes a client for each service.
#[derive(Debug)]
pub(crate) struct Clients {
    pub(crate) on: bool,
    pub(crate) runtime: String,
}

impl Default for Clients {
    fn default() -> Self {
        Self { on: true, runtime: "::portolan_grpc".to_owned() }
    }
}

impl ServiceGenerator for Clients {
    fn generate(&mut self, service: Service, out: &mut String) {
        if self.on {
            // Writing to a string can't fail.
            let _ = self.write(&service, out);
        }
    }
}

impl Clients {
    fn write(&self, service: &Service, out: &mut String) -> std::fmt::Result {
        let runtime = &self.runtime;
        let name = format!("{}Client", service.name);
        let full = full_name(service);
        if service.comments.leading.is_empty() {
            writeln!(out, "/// A client of `{full}`.")?;
        } else {
            docs(&service.comments, out)?;
        }
        deprecated(service.options.deprecated(), out)?;
        writeln!(out, "#[derive(Debug)]\npub struct {name}<T> {{\n    client: {runtime}::Client<T>,\n}}\n")?;
        // Derived, it would ask for more than it needs.
        writeln!(out, "#[allow(deprecated, reason = \"a deprecated service has a client too\")]")?;
        writeln!(out, "impl<T> Clone for {name}<T> {{\n    fn clone(&self) -> Self {{")?;
        writeln!(out, "        Self {{ client: self.client.clone() }}\n    }}\n}}\n")?;
        writeln!(out, "#[allow(deprecated, reason = \"a deprecated service has a client too\")]")?;
        writeln!(out, "impl<T: {runtime}::Transport> {name}<T> {{")?;
        writeln!(out, "    /// The name of the service.\n    pub const NAME: &'static str = \"{full}\";\n")?;
        writeln!(out, "    /// Calls the service by this client.")?;
        writeln!(out, "    pub fn new(client: {runtime}::Client<T>) -> Self {{\n        Self {{ client }}\n    }}\n")?;
        writeln!(out, "    /// The client beneath.")?;
        writeln!(out, "    pub fn client(&self) -> &{runtime}::Client<T> {{\n        &self.client\n    }}")?;
        for method in &service.methods {
            self.method(&full, method, out)?;
        }
        writeln!(out, "}}")
    }

    fn method(&self, service: &str, method: &Method, out: &mut String) -> std::fmt::Result {
        let runtime = &self.runtime;
        let (input, output) = (&method.input_type, &method.output_type);
        let name =
            if TAKEN.contains(&method.name.as_str()) { format!("{}_", method.name) } else { method.name.clone() };
        let codec = format!("{runtime}::Prost<{input}, {output}>");
        writeln!(out)?;
        if method.comments.leading.is_empty() {
            writeln!(out, "/// `{service}/{}`.", method.proto_name)?;
        } else {
            docs(&method.comments, out)?;
        }
        deprecated(method.options.deprecated(), out)?;
        let (generics, arguments, kind, call) = match (method.client_streaming, method.server_streaming) {
            (false, false) => ("", format!(", request: &{input}"), "Unary", "unary(&method, request)"),
            (false, true) => {
                ("", format!(", request: &{input}"), "ServerStreaming", "server_streaming(&method, request)")
            }
            (true, false) => {
                ("<S>", ", requests: S".to_owned(), "ClientStreaming<S>", "client_streaming(&method, requests)")
            }
            (true, true) => ("", String::new(), "DuplexCall", "duplex(&method)"),
        };
        writeln!(
            out,
            "    pub fn {name}{generics}(&self{arguments}) -> {runtime}::Call<T, {codec}, {runtime}::{kind}>"
        )?;
        if !generics.is_empty() {
            writeln!(out, "    where\n        S: {runtime}::Stream<Item = {input}> + Send + 'static,")?;
        }
        let path = format!("/{service}/{}", method.proto_name);
        let codec = codec.replacen('<', "::<", 1);
        let safe = method.options.idempotency_level() == IdempotencyLevel::NoSideEffects;
        let safe = if safe { ".no_side_effects()" } else { "" };
        writeln!(
            out,
            "    {{\n        let method = {runtime}::Method::from_static(\"{path}\", {codec}::new()){safe};"
        )?;
        writeln!(out, "        self.client.{call}\n    }}")
    }
}

fn full_name(service: &Service) -> String {
    if service.package.is_empty() {
        service.proto_name.clone()
    } else {
        format!("{}.{}", service.package, service.proto_name)
    }
}

fn deprecated(on: bool, out: &mut String) -> std::fmt::Result {
    if on { writeln!(out, "#[deprecated]") } else { Ok(()) }
}

/// The comments of the file. What rustdoc would take for code to be run is kept from being so.
fn docs(comments: &Comments, out: &mut String) -> std::fmt::Result {
    let mut text = String::new();
    comments.append_with_indent(0, &mut text);
    let mut fenced = false;
    for line in text.lines() {
        let Some(words) = line.strip_prefix("///") else {
            writeln!(out, "{line}")?;
            continue;
        };
        let plain = words.trim_start();
        if plain.starts_with("```") {
            fenced = !fenced;
            writeln!(out, "/// ```{}", if fenced { "text" } else { "" })?;
        } else if !fenced && words.len() - plain.len() > 4 {
            writeln!(out, "///   {plain}")?;
        } else {
            writeln!(out, "{line}")?;
        }
    }
    // A fence that is never closed would take the rest of the item with it.
    if fenced { writeln!(out, "/// ```") } else { Ok(()) }
}
