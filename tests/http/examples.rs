//! Examples of HTTP, run as a user runs them.

#[path = "../../examples/http/download.rs"]
#[allow(dead_code, reason = "its main is for its user")]
mod download;
#[path = "../../examples/http/get.rs"]
#[allow(dead_code, reason = "its main is for its user")]
mod get;
#[path = "../../examples/http/parallel.rs"]
#[allow(dead_code, reason = "its main is for its user")]
mod parallel;

use std::path::Path;
use std::time::Duration;

use portolan_core::Kind;
use portolan_testbed::{Certs, Server, Service, folder, free_port};

use super::servers::{self, big};

/// An nginx that is slow enough to be left in the middle of `big.bin`, and what it logs.
fn slow() -> Option<(Server, String)> {
    let port = free_port();
    let dir = folder("slow");
    servers::site(&dir);
    let conf = format!(
        "daemon off; user root; worker_processes 1; pid $D/pid; error_log $D/error.log;
         events {{ worker_connections 64; }}
         http {{
           log_format short '$status $body_bytes_sent'; access_log $D/access.log short;
           client_body_temp_path $D/b; proxy_temp_path $D/p; fastcgi_temp_path $D/f; uwsgi_temp_path $D/u; scgi_temp_path $D/s;
           server {{ listen 127.0.0.1:{port}; root $D/www; limit_rate 2m; }}
         }}"
    );
    let server = Service::new("nginx", "nginx").folder(dir).file("nginx.conf", conf);
    let server = server.args(["-c", "$D/nginx.conf", "-e", "$D/error.log"]);
    Some((server.accepts(([127, 0, 0, 1], port).into()).start()?, format!("http://127.0.0.1:{port}/big.bin")))
}

fn size(path: &Path) -> u64 {
    path.metadata().map_or(0, |facts| facts.len())
}

/// Begins a download, and leaves it when something of it is there.
async fn left(url: &str, to: &Path) {
    let part = to.with_extension("part");
    let some = async {
        while size(&part) == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let whole = download::run(vec![url.to_owned(), to.display().to_string()]);
    tokio::select! {
        () = some => {}
        result = whole => panic!("whole before it was left: {result:?}"),
    }
}

#[tokio::test]
async fn download_goes_on_in_another_run_unless_the_file_has_changed() {
    let Some((nginx, url)) = slow() else { return };
    let to = nginx.dir().join("out");
    let args = || vec![url.clone(), to.display().to_string()];
    let asked = || std::fs::read_to_string(nginx.dir().join("access.log")).unwrap();
    let parts = ["out.part", "out.part.resume"].map(|name| nginx.dir().join(name));
    left(&url, &to).await;
    assert!(parts.iter().all(|part| part.exists()) && !to.exists());
    download::run(args()).await.unwrap();
    assert!(std::fs::read(&to).unwrap() == big() && parts.iter().all(|part| !part.exists()));
    let lines = asked();
    let last: Vec<_> = lines.lines().last().unwrap().split(' ').collect();
    assert!(last[0] == "206" && last[1].parse::<usize>().unwrap() < big().len(), "{lines}");
    // Another file of the same name: all of it is fetched.
    left(&url, &to).await;
    let other: Vec<u8> = big().iter().rev().copied().collect();
    std::fs::write(nginx.dir().join("www/new"), &other).unwrap();
    std::fs::rename(nginx.dir().join("www/new"), nginx.dir().join("www/big.bin")).unwrap();
    let later = std::time::SystemTime::now() + Duration::from_secs(60);
    std::fs::File::options().append(true).open(nginx.dir().join("www/big.bin")).unwrap().set_modified(later).unwrap();
    download::run(args()).await.unwrap();
    assert!(std::fs::read(&to).unwrap() == other);
    assert!(asked().lines().last().unwrap().starts_with("200 "));
    // What is not there leaves nothing.
    let error =
        download::run(vec![format!("{url}.not"), nginx.dir().join("not").display().to_string()]).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (Kind::Server, Some(404)));
    assert!(!nginx.dir().join("not.part").exists());
}

#[tokio::test]
async fn get_goes_by_every_version_and_parallel_asks_a_thousand_times() {
    let certs = Certs::new();
    let Some(site) = servers::caddy(&certs) else { return };
    let ca = folder("get").join("ca.pem");
    std::fs::write(&ca, certs.ca.as_bytes()).unwrap();
    let url = format!("https://localhost:{}/small.txt", site.tls.unwrap());
    for version in ["--http1", "--http2", "--http3"] {
        let args = [version, "--timings", "-i", "--cacert", &ca.display().to_string(), &url].map(str::to_owned);
        get::run(args.into()).await.unwrap();
    }
    let args =
        ["--http3", "--proxy", "http://127.0.0.1:9", "--cacert", &ca.display().to_string(), &url].map(str::to_owned);
    let error = get::run(args.into()).await.unwrap_err();
    assert_eq!((error.kind(), error.hop()), (Kind::Unsupported, Some(0)), "{error}");
    for wrong in [&["--what", "x"][..], &["-X"], &["-H", "none", "x"], &["--cacert", "/nowhere", "x"], &["--http1"]] {
        let error = get::run(wrong.iter().map(|&word| word.to_owned()).collect()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Usage, "{wrong:?}");
    }
    let plain = format!("http://localhost:{}/small.txt", site.plain.unwrap());
    parallel::run(vec![plain.clone()]).await.unwrap();
    let error = parallel::run(vec![format!("{plain}.not"), "5".to_owned()]).await.unwrap_err();
    assert_eq!(error.code(), Some(404));
    std::fs::remove_dir_all(ca.parent().unwrap()).unwrap();
}
