//! The desktop's proxies, as GNOME keeps them: written by the real `gsettings` into a folder of the test's own, and read by a process that
//! knows of no other settings.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Command;

use portolan_core::{Connector, Endpoint, Kind};
use portolan_testbed::{find, folder};

/// A program that has the settings of `dir` and nothing of ours.
fn within(program: &Path, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("GSETTINGS_BACKEND", "keyfile").env("XDG_CONFIG_HOME", dir).env("HOME", dir);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().to_ascii_lowercase().ends_with("_proxy") {
            command.env_remove(name);
        }
    }
    command
}

/// What a process says that has these settings: see [`in_a_process_of_its_own`].
fn child(dir: &Path, desktop: &str) -> String {
    let mut command = within(&std::env::current_exe().unwrap(), dir);
    command.env("XDG_CURRENT_DESKTOP", desktop).env("PORTOLAN_DESKTOP_TEST", "1");
    let args = ["--exact", "desktop::in_a_process_of_its_own", "--ignored", "--nocapture"];
    let output = command.args(args).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = text.lines().find_map(|line| line.split_once("SAID ").map(|(_, said)| said.to_owned()));
    said.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
}

#[tokio::test]
#[ignore = "a part of another test, which starts it with settings of its own"]
async fn in_a_process_of_its_own() {
    if std::env::var_os("PORTOLAN_DESKTOP_TEST").is_none() {
        return;
    }
    let net = match Connector::builder().proxy_from_system() {
        Ok(net) => net.build().unwrap(),
        Err(error) => return println!("SAID {:?}: {}", error.kind(), error.message()),
    };
    let mut seen = Vec::new();
    for (scheme, authority) in [("http", "target.test:80"), ("https", "target.test:443"), ("http", "near.test:80")] {
        let to = Endpoint::parse(authority, None).unwrap().with_scheme(scheme);
        let error = net.connect(&to).await.unwrap_err();
        // What a proxy refuses was asked of it; without one, the name is not there.
        seen.push(format!("{:?} {:?}", error.kind(), error.code()));
    }
    println!("SAID {}", seen.join(", "));
}

/// A proxy that refuses everybody, so that who asked it is seen.
fn refusing() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream);
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
                line.clear();
            }
            let _ = reader.get_mut().write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n");
        }
    });
    port
}

#[test]
fn what_gsettings_keeps_is_the_way_to_everybody() {
    let Some(gsettings) = find("libglib2.0-bin", "gsettings") else { return };
    let dir = folder("gsettings");
    let set = |schema: &str, key: &str, value: &str| {
        let schema = format!("org.gnome.system.proxy{schema}");
        let status = within(&gsettings, &dir).args(["set", &schema, key, value]).status().unwrap();
        assert!(status.success(), "{schema} {key}: install gsettings-desktop-schemas");
    };
    let direct = "Resolve None, Resolve None, Resolve None";
    assert_eq!(child(&dir, "GNOME"), direct);
    set(".http", "host", "127.0.0.1");
    set(".http", "port", &refusing().to_string());
    set("", "use-same-proxy", "false");
    set("", "ignore-hosts", "['near.test', '*.local', '::1']");
    assert_eq!(child(&dir, "GNOME"), direct);
    set("", "mode", "manual");
    assert_eq!(child(&dir, "ubuntu:GNOME"), "Hop Some(403), Resolve None, Resolve None");
    set("", "use-same-proxy", "true");
    assert_eq!(child(&dir, "GNOME"), "Hop Some(403), Hop Some(403), Resolve None");
    set("", "mode", "auto");
    assert!(child(&dir, "GNOME").starts_with(&format!("{:?}: ", Kind::Unsupported)));
    // KDE keeps its own: here none, then a script.
    assert_eq!(child(&dir, "KDE"), direct);
    std::fs::write(dir.join("kioslaverc"), "[Proxy Settings]\nProxyType=2\n").unwrap();
    assert!(child(&dir, "KDE").starts_with("Unsupported: "));
    let _ = std::fs::remove_dir_all(&dir);
}
