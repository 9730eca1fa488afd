//! Downloads to a file with a progress bar, and goes on where the connection broke: `cargo run --example download -- URL FILE`.

#![allow(clippy::print_stderr, reason = "an example talks to its user")]

use portolan_core::{Error, Result};
use portolan_http::Client;
use portolan_http::range::{Resume, Resumed};
use tokio::io::AsyncWriteExt;

const TRIES: usize = 5;

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(url), Some(path)) = (args.next(), args.next()) else {
        return Err(Error::usage("usage: download URL FILE"));
    };
    // The bytes of the wire are counted, so none are to be undone.
    let client = Client::builder().decompression(None).build()?;
    let mut file = create(&path).await?;
    let mut resume: Option<Resume> = None;
    let mut received = 0;
    for attempt in 1.. {
        let mut request = client.get(&url).build()?;
        if let Some(resume) = &resume {
            resume.ask(request.headers_mut());
        }
        let (parts, body) = client.execute(request).await?.error_for_status()?.into_http().into_parts();
        match resume.as_mut().map(|resume| resume.judge(&parts)).transpose()? {
            Some(Resumed::Complete) => break,
            Some(Resumed::GoesOn) => {}
            _ => {
                file = create(&path).await?;
                received = 0;
                resume = Resume::new(&parts);
            }
        }
        match save(body, &mut file, &mut resume, &mut received).await {
            Ok(()) => break,
            Err(error) if attempt < TRIES && resume.is_some() => eprintln!("\n{error}; going on at {received}"),
            Err(error) => return Err(error),
        }
    }
    eprintln!("\n{received} bytes in {path}");
    Ok(())
}

async fn create(path: &str) -> Result<tokio::fs::File> {
    tokio::fs::File::create(path).await.map_err(|error| Error::usage("the file can't be written").with_source(error))
}

async fn save(
    mut body: portolan_http::Incoming,
    file: &mut tokio::fs::File,
    resume: &mut Option<Resume>,
    received: &mut u64,
) -> Result<()> {
    use http_body_util::BodyExt;
    let total = resume.as_ref().and_then(Resume::length);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        file.write_all(&data).await.map_err(|error| Error::usage("the file can't be written").with_source(error))?;
        *received += data.len() as u64;
        if let Some(resume) = resume {
            resume.advance(data.len() as u64);
        }
        bar(*received, total);
    }
    file.flush().await.map_err(|error| Error::usage("the file can't be written").with_source(error))
}

fn bar(received: u64, total: Option<u64>) {
    match total.filter(|total| *total > 0) {
        Some(total) => {
            let share = (received * 40 / total).min(40) as usize;
            eprint!("\r[{:<40}] {:>3}%", "=".repeat(share), received * 100 / total);
        }
        None => eprint!("\r{received} bytes"),
    }
}
