//! uwhoisd: a whois server that looks what it is asked up at another.

use std::net::SocketAddr;

use portolan_testbed::{Server, Service, free_port};

/// One that asks `registry` about names in `org`.
pub(crate) fn uwhoisd(registry: SocketAddr) -> Option<(Server, SocketAddr)> {
    let port = free_port();
    let conf = format!(
        "[uwhoisd]\niface=127.0.0.1\nport={port}\nconservative=\n[overrides]\norg={registry}\n[loggers]\nkeys=root\n[handlers]\nkeys=out\n\
         [formatters]\nkeys=plain\n[logger_root]\nlevel=INFO\nhandlers=out\n[handler_out]\nclass=StreamHandler\n\
         formatter=plain\nargs=(sys.stderr,)\n[formatter_plain]\nformat=%(message)s\n"
    );
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    let uwhoisd = Service::new("pip:uwhoisd", "uwhoisd").file("uwhoisd.ini", conf).arg("$D/uwhoisd.ini");
    Some((uwhoisd.accepts(addr).start()?, addr))
}
