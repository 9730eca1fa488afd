//! Negotiate as Windows and MIT networks have it: a Kerberos realm of our own, squid as its service, and tokens made by GSSAPI.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine;
use portolan_core::{Connector, Endpoint, Error, Hop, Kind, ProxyAuth};
use portolan_testbed::{Server, Service, find, folder, free_port, record};

use super::auth::{log, squid_with};
use super::{redis, refused_login};

/// Asks GSSAPI for a token, as a program with a GSS library would: squid brings the tool.
const TOKEN: &str = "/usr/lib/squid/negotiate_kerberos_auth_test";

/// A realm: its center, and the variables by which its programs find each other.
struct Realm {
    center: Server,
    variables: Vec<(&'static str, String)>,
}

impl Realm {
    fn start() -> Option<Self> {
        for (package, tool) in
            [("krb5-kdc", "kdb5_util"), ("krb5-admin-server", "kadmin.local"), ("krb5-user", "kinit")]
        {
            find(package, tool)?;
        }
        let (dir, port) = (folder("kerberos"), free_port());
        let here = dir.display();
        let client = format!(
            "[libdefaults]\n default_realm = PORTOLAN.TEST\n dns_lookup_kdc = false\n dns_lookup_realm = false\n\
             dns_canonicalize_hostname = false\n rdns = false\n udp_preference_limit = 1\n\
             [realms]\n PORTOLAN.TEST = {{\n  kdc = 127.0.0.1:{port}\n }}\n[domain_realm]\n localhost = PORTOLAN.TEST\n"
        );
        let center = format!(
            "[realms]\n PORTOLAN.TEST = {{\n  database_name = {here}/principal\n  key_stash_file = {here}/stash\n\
             kdc_listen = 127.0.0.1:{port}\n  kdc_tcp_listen = 127.0.0.1:{port}\n\
             supported_enctypes = aes256-cts-hmac-sha1-96:normal\n }}\n"
        );
        std::fs::write(dir.join("krb5.conf"), client).unwrap();
        std::fs::write(dir.join("kdc.conf"), center).unwrap();
        let variables = vec![
            ("KRB5_CONFIG", format!("{here}/krb5.conf")),
            ("KRB5_KDC_PROFILE", format!("{here}/kdc.conf")),
            ("KRB5CCNAME", format!("FILE:{here}/tickets")),
            ("KRB5RCACHENAME", "none:".to_owned()),
        ];
        let keytab = dir.join("keytab");
        let run = |program: &str, args: &[&str]| said(program, args, &variables).unwrap();
        run("kdb5_util", &["create", "-s", "-P", "master", "-r", "PORTOLAN.TEST"]);
        for query in ["addprinc -pw sesame ann", "addprinc -randkey HTTP/localhost"] {
            run("kadmin.local", &["-q", query]);
        }
        run("kadmin.local", &["-q", &format!("ktadd -k {} HTTP/localhost", keytab.display())]);
        // Squid is not root when it reads it.
        for path in [keytab.as_path(), Path::new(&dir)] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let service = Service::new("krb5-kdc", "krb5kdc").args(["-n"]).folder(dir);
        let service = variables.iter().fold(service, |service, (name, value)| service.env(*name, value));
        let center = service.accepts(([127, 0, 0, 1], port).into()).start()?;
        Some(Self { center, variables })
    }

    /// Logs ann in: a ticket in the realm's own cache.
    fn log_in(&self) {
        let mut kinit = Command::new("kinit");
        kinit.arg("ann").envs(self.variables.iter().cloned()).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut kinit = kinit.spawn().unwrap();
        std::io::Write::write_all(&mut kinit.stdin.take().unwrap(), b"sesame\n").unwrap();
        assert!(kinit.wait().unwrap().success());
    }
}

fn said(program: &str, args: &[&str], variables: &[(&'static str, String)]) -> Result<String, String> {
    let paths = "/usr/sbin:/usr/bin:/sbin:/bin";
    let output = Command::new(program).args(args).envs(variables.iter().cloned()).env("PATH", paths).output();
    let output = output.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if output.status.success() { Ok(text) } else { Err(text) }
}

/// A token for the proxy, out of the tickets that there are.
fn token(proxy: &Endpoint, variables: &[(&'static str, String)]) -> Result<Vec<u8>, Error> {
    let failed = |why: String| Error::new(Kind::Auth, format!("no Kerberos token: {why}"));
    let text = said(TOKEN, &[&proxy.host_text()], variables).map_err(failed)?;
    let token = text.lines().find_map(|line| line.strip_prefix("Token: ")).filter(|token| *token != "NULL");
    let token = token.ok_or_else(|| failed(text.lines().next().unwrap_or_default().to_owned()))?;
    base64::engine::general_purpose::STANDARD.decode(token.trim()).map_err(|error| failed(error.to_string()))
}

#[tokio::test]
async fn a_ticket_of_kerberos_opens_squid_and_none_does_not() {
    let Some((_redis, to)) = redis() else { return };
    let Some(realm) = Realm::start() else { return };
    let keytab = realm.center.dir().join("keytab");
    let helper = format!(
        "auth_param negotiate program /usr/lib/squid/negotiate_kerberos_auth -k {} -s HTTP/localhost@PORTOLAN.TEST\n\
         auth_param negotiate children 2 startup=2 idle=1\n",
        keytab.display()
    );
    let Some(squid) = squid_with(&helper, &realm.variables) else { return };
    let variables = realm.variables.clone();
    let auth = ProxyAuth::negotiate(move |proxy| {
        let variables = variables.clone();
        async move { token(&proxy, &variables) }
    });
    let net = Connector::builder().via(Hop::http(squid.endpoint()).auth(auth)).build().unwrap();
    let error = net.connect(&to).await.unwrap_err();
    assert_eq!((error.kind(), error.hop()), (Kind::Auth, Some(0)), "nobody has logged in: {error:?}");
    realm.log_in();
    for _ in 0..3 {
        net.connect(&to).await.unwrap();
    }
    let lines = log(&squid, 3);
    assert!(lines.iter().filter(|line| line.starts_with("200 Negotiate ")).count() >= 3, "{lines:?}");
    record("http-connect", "peer", &squid.version, "negotiate by Kerberos (MIT krb5), redis inside", 3);
    let forged = ProxyAuth::negotiate(|_| async { Ok(b"\x60\x03\x06\x01\x00".to_vec()) });
    let net = Connector::builder().via(Hop::http(squid.endpoint()).auth(forged)).build().unwrap();
    refused_login(&net.connect(&to).await.unwrap_err(), Some(407));
}
