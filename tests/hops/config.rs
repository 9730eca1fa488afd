//! The way out of a file: hops of three crates behind each other, with passwords and roots from beside it; Redis at the end.

use portolan_db::redis::{Client, Options};
use portolan_testbed::{Certs, free_port, record};

use super::h2::nghttpx;
use super::h3::masque;
use super::{danted, microsocks, redis, squid};

#[tokio::test]
async fn a_file_leads_through_hops_of_every_crate() {
    let Some((_redis, to)) = redis() else { return };
    let certs = Certs::new();
    let (Some(micro), Some(dante), Some(squid)) =
        (microsocks(free_port(), true), danted(free_port()), squid(&certs, free_port(), free_port()))
    else {
        return;
    };
    let (Some(front), Some(masque)) = (nghttpx(Some(&certs), squid.addr.port()), masque(&certs, true)) else { return };
    let dir = portolan_testbed::folder("config");
    std::fs::write(dir.join("ca.pem"), &certs.ca).unwrap();
    std::fs::write(dir.join("password"), "sesame\n").unwrap();
    let beside = dir.display();
    let text = format!(
        r#"
        via = [
            {{ url = "socks5h://ann@localhost:{}", password = {{ file = "{beside}/password" }} }},
            {{ url = "h2://localhost:{}", user = "ann", password = "sesame", auth = "strongest" }},
            "socks4://127.0.0.1:{}",
        ]
        [[routes]]
        to = "*.masque.test"
        via = "socks5://127.0.0.1:{} -> masque://ann:sesame@localhost:{}"
        [hosts]
        "redis.masque.test" = ["127.0.0.1"]
        [timeouts]
        hop = "5s"
        [policy]
        allow = ["127.0.0.1"]
        [hop_tls]
        roots = "custom"
        ca = [{{ file = "{beside}/ca.pem" }}]
        resumption = 0
        "#,
        micro.addr.port(),
        front.addr.port(),
        dante.addr.port(),
        dante.addr.port(),
        masque.addr.port(),
    );
    let net = portolan::connector_from_toml(&text);
    std::fs::remove_dir_all(&dir).unwrap();
    let net = net.unwrap();
    assert!(!format!("{net:?}").contains("sesame"));
    let there = portolan::Endpoint::new("redis.masque.test", to.port()).unwrap();
    for (to, kinds) in [(to, &["socks5h", "h2", "socks4"][..]), (there, &["socks5", "h3"])] {
        let client = Client::connect(&net, Options::new(to)).await.unwrap();
        client.set("k", "configured").await.unwrap();
        let hops: Vec<_> = client.info().unwrap().hops.iter().map(|hop| hop.kind).collect();
        assert_eq!(hops, kinds);
        client.close().await.unwrap();
    }
    record("h2-connect", "peer", &front.version, "a chain out of TOML", 2);
}
