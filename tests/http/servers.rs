//! The web servers of this suite: each serves the same files, in cleartext and over TLS.

use std::path::Path;

use portolan_core::{Connector, Roots, Tls};
use portolan_testbed::{Certs, Server, Service, folder, free_port};

/// A server, where it listens, and what it is.
pub(crate) struct Site {
    pub(crate) name: &'static str,
    pub(crate) version: String,
    /// HTTP/1.1 in cleartext.
    pub(crate) plain: Option<u16>,
    /// HTTP/2 in cleartext, by prior knowledge.
    pub(crate) h2c: Option<u16>,
    pub(crate) tls: Option<u16>,
    /// HTTP/3.
    pub(crate) quic: Option<u16>,
    /// What the server looks like when it compresses by itself.
    pub(crate) gzip: bool,
    _server: Server,
}

/// The size of the file `big`.
pub(crate) const BIG: usize = 3 << 20;

/// The files that all of them serve.
pub(crate) fn site(dir: &Path) {
    let www = dir.join("www");
    std::fs::create_dir_all(www.join("folder")).unwrap();
    std::fs::write(www.join("small.txt"), "sixteen bytes ok").unwrap();
    std::fs::write(www.join("big.bin"), big()).unwrap();
    std::fs::write(www.join("long.txt"), "the same line again and again\n".repeat(2000)).unwrap();
    std::fs::write(www.join("folder/index.html"), "<p>hello</p>").unwrap();
    // Servers that drop their rights must still be able to read.
    let _ = std::process::Command::new("chmod").args(["-R", "a+rX"]).arg(dir).status();
}

/// Bytes that no compression makes short and no shift leaves the same.
pub(crate) fn big() -> Vec<u8> {
    let mut state = 1u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(BIG).collect()
}

fn version(binary: &str, args: &[&str]) -> String {
    let output = std::process::Command::new(binary).args(args).output();
    let text = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    text.lines().next().unwrap_or_default().trim().to_owned()
}

pub(crate) fn connector(certs: &Certs) -> Connector {
    let tls = Tls::builder().roots(Roots::Custom).root_pem(certs.ca.as_bytes()).build().unwrap();
    Connector::builder().tls(tls).build().unwrap()
}

fn new_folder(name: &str) -> std::path::PathBuf {
    let dir = folder(name);
    site(&dir);
    dir
}

pub(crate) fn nginx(certs: &Certs) -> Option<Site> {
    let (plain, h2c, tls) = (free_port(), free_port(), free_port());
    let conf = format!(
        "daemon off; user root; worker_processes 1; pid $D/pid; error_log $D/error.log;
         events {{ worker_connections 512; }}
         http {{
           access_log off; gzip on; gzip_types *; gzip_min_length 100; default_type application/octet-stream;
           client_body_temp_path $D/b; proxy_temp_path $D/p; fastcgi_temp_path $D/f; uwsgi_temp_path $D/u; scgi_temp_path $D/s;
           ssl_certificate $D/server.pem; ssl_certificate_key $D/server.key;
           server {{
             listen 127.0.0.1:{plain}; listen 127.0.0.1:{h2c} http2; listen 127.0.0.1:{tls} ssl http2; root $D/www; absolute_redirect off;
             location = /moved {{ return 301 /small.txt; }}
             location = /broken {{ return 500 oops; }}
             location = /basic {{ auth_basic x; auth_basic_user_file $D/users; try_files /small.txt =404; }}
             location = /upload {{ client_max_body_size 64m; dav_methods PUT; create_full_put_path on; alias $D/www/uploaded; }}
             location = /kept {{ add_header cache-control max-age=600 always; return 301 /fresh; }}
             location = /fresh {{ add_header cache-control max-age=600; try_files /small.txt =404; }}
             location = /once {{ keepalive_requests 1; try_files /small.txt =404; }}
           }}
         }}"
    );
    let server = Service::new("nginx", "nginx")
        .folder(new_folder("nginx"))
        .file("nginx.conf", conf)
        .file("users", "joe:{PLAIN}secret\n")
        .tls(certs)
        .args(["-c", "$D/nginx.conf", "-e", "$D/error.log"])
        .accepts(([127, 0, 0, 1], plain).into())
        .accepts(([127, 0, 0, 1], h2c).into())
        .start()?;
    let version = version("nginx", &["-v"]).replace("nginx version: ", "");
    Some(Site {
        name: "nginx",
        version,
        plain: Some(plain),
        h2c: Some(h2c),
        tls: Some(tls),
        quic: None,
        gzip: true,
        _server: server,
    })
}

pub(crate) fn apache(certs: &Certs) -> Option<Site> {
    let (plain, tls) = (free_port(), free_port());
    let modules = "/usr/lib/apache2/modules";
    let load = ["mpm_event", "authz_core", "http2", "ssl", "deflate", "filter", "mime", "dir", "alias"];
    let load: String = load.iter().map(|name| format!("LoadModule {name}_module {modules}/mod_{name}.so\n")).collect();
    let conf = format!(
        "{load}ServerRoot $D\nServerName localhost\nPidFile $D/pid\nErrorLog $D/error.log\nDefaultRuntimeDir $D\n\
         User www-data\nGroup www-data\nTypesConfig /etc/mime.types\nMutex file:$D default\n\
         Listen 127.0.0.1:{plain}\nListen 127.0.0.1:{tls}\nProtocols h2 h2c http/1.1\nDocumentRoot $D/www\nDirectoryIndex index.html\n\
         <Directory $D/www>\nRequire all granted\n</Directory>\n\
         AddOutputFilterByType DEFLATE text/plain\nRedirect 301 /moved /small.txt\nMaxKeepAliveRequests 0\n\
         <VirtualHost 127.0.0.1:{tls}>\nSSLEngine on\nSSLCertificateFile $D/server.pem\nSSLCertificateKeyFile $D/server.key\n</VirtualHost>\n"
    );
    let server = Service::new("apache2", "apache2")
        .folder(new_folder("apache"))
        .file("apache.conf", conf)
        .tls(certs)
        .args(["-f", "$D/apache.conf", "-D", "FOREGROUND"])
        .accepts(([127, 0, 0, 1], plain).into())
        .accepts(([127, 0, 0, 1], tls).into())
        .start()?;
    let version = version("apache2", &["-v"]).replace("Server version: ", "");
    Some(Site {
        name: "apache2",
        version,
        plain: Some(plain),
        h2c: Some(plain),
        tls: Some(tls),
        quic: None,
        gzip: true,
        _server: server,
    })
}

pub(crate) fn node(certs: &Certs) -> Option<Site> {
    let (plain, h2c, tls) = (free_port(), free_port(), free_port());
    let ports = [plain, h2c, tls].map(|port| port.to_string());
    let server = Service::new("nodejs", "node")
        .folder(new_folder("node"))
        .file("site.mjs", include_str!("site.mjs"))
        .tls(certs)
        .args(["$D/site.mjs", "$D", &ports[0], &ports[1], &ports[2]])
        .accepts(([127, 0, 0, 1], plain).into())
        .accepts(([127, 0, 0, 1], tls).into())
        .start()?;
    Some(Site {
        name: "node",
        version: format!("node {}", version("node", &["--version"])),
        plain: Some(plain),
        h2c: Some(h2c),
        tls: Some(tls),
        quic: None,
        gzip: false,
        _server: server,
    })
}

pub(crate) fn caddy(certs: &Certs) -> Option<Site> {
    let (plain, tls) = (free_port(), free_port());
    let conf = format!(
        "{{\n admin off\n auto_https off\n storage file_system $D/data\n servers :{plain} {{\n  protocols h1 h2c\n }}\n}}\n\
         http://localhost:{plain} {{\n bind 127.0.0.1\n root * $D/www\n encode gzip\n redir /moved /small.txt 301\n file_server\n}}\n\
         https://localhost:{tls} {{\n bind 127.0.0.1\n tls $D/server.pem $D/server.key\n root * $D/www\n encode gzip\n redir /moved /small.txt 301\n file_server\n}}\n"
    );
    let server = Service::new("caddy", "caddy")
        .folder(new_folder("caddy"))
        .file("Caddyfile", conf)
        .tls(certs)
        .env("HOME", "$D")
        .args(["run", "--config", "$D/Caddyfile", "--adapter", "caddyfile"])
        .accepts(([127, 0, 0, 1], plain).into())
        .accepts(([127, 0, 0, 1], tls).into())
        .start()?;
    let version = format!("caddy {}", version("caddy", &["version"]));
    // Caddy speaks HTTP/3 at the port of its TLS.
    Some(Site {
        name: "caddy",
        version,
        plain: Some(plain),
        h2c: None,
        tls: Some(tls),
        quic: Some(tls),
        gzip: true,
        _server: server,
    })
}

pub(crate) fn h2o(certs: &Certs) -> Option<Site> {
    let (plain, tls) = (free_port(), free_port());
    let conf = format!(
        "pid-file: $D/pid\nerror-log: $D/error.log\nnum-threads: 1\nuser: root\ncompress: [gzip]\n\
         hosts:\n  \"localhost\":\n    listen:\n      host: 127.0.0.1\n      port: {plain}\n    paths: &paths\n      \"/moved\":\n        redirect:\n          status: 301\n          url: /small.txt\n      \"/\":\n        file.dir: $D/www\n\
         \x20 \"localhost:{tls}\":\n    listen:\n      host: 127.0.0.1\n      port: {tls}\n      ssl:\n        certificate-file: $D/server.pem\n        key-file: $D/server.key\n    paths: *paths\n"
    );
    let server = Service::new("h2o", "h2o")
        .folder(new_folder("h2o"))
        .file("h2o.conf", conf)
        .tls(certs)
        .args(["-c", "$D/h2o.conf"])
        .accepts(([127, 0, 0, 1], plain).into())
        .accepts(([127, 0, 0, 1], tls).into())
        .start()?;
    let version = version("h2o", &["--version"]);
    Some(Site {
        name: "h2o",
        version,
        plain: Some(plain),
        h2c: Some(plain),
        tls: Some(tls),
        quic: None,
        gzip: false,
        _server: server,
    })
}

pub(crate) fn nghttpd(certs: &Certs) -> Option<Site> {
    let tls = free_port();
    let server = Service::new("nghttp2-server", "nghttpd")
        .folder(new_folder("nghttpd"))
        .tls(certs)
        .args(["-a", "127.0.0.1", "-d", "$D/www", &tls.to_string(), "$D/server.key", "$D/server.pem"])
        .accepts(([127, 0, 0, 1], tls).into())
        .start()?;
    let version = version("nghttpd", &["--version"]);
    Some(Site {
        name: "nghttpd",
        version,
        plain: None,
        h2c: None,
        tls: Some(tls),
        quic: None,
        gzip: false,
        _server: server,
    })
}

/// haproxy before an nginx.
pub(crate) fn haproxy(certs: &Certs, behind: &Site) -> Option<Site> {
    let (plain, tls) = (free_port(), free_port());
    let conf = format!(
        "global\n maxconn 500\ndefaults\n mode http\n timeout client 30s\n timeout server 30s\n timeout connect 5s\n\
         frontend plain\n bind 127.0.0.1:{plain}\n default_backend web\n\
         frontend tls\n bind 127.0.0.1:{tls} ssl crt $D/both.pem alpn h2,http/1.1\n default_backend web\n\
         backend web\n server nginx 127.0.0.1:{}\n",
        behind.plain?
    );
    let server = Service::new("haproxy", "haproxy")
        .folder(new_folder("haproxy"))
        .file("haproxy.cfg", conf)
        .file("both.pem", format!("{}{}", certs.server, certs.server_key))
        .args(["-db", "-f", "$D/haproxy.cfg"])
        .accepts(([127, 0, 0, 1], plain).into())
        .accepts(([127, 0, 0, 1], tls).into())
        .start()?;
    let version = version("haproxy", &["-v"]);
    Some(Site {
        name: "haproxy",
        version,
        plain: Some(plain),
        h2c: None,
        tls: Some(tls),
        quic: None,
        gzip: true,
        _server: server,
    })
}
