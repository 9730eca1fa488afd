//! Downloads to a file with a progress bar, and goes on where it broke off, in this run or in the next:
//! `cargo run --example download -- URL FILE`. Until it is whole, what there is lies in `FILE.part`.

#![allow(clippy::print_stderr, reason = "an example talks to its user")]

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use portolan_core::{Error, Kind, Result, clock};
use portolan_http::Client;
use portolan_http::range::{Resume, Resumed};
use tokio::fs;
use tokio::io::AsyncWriteExt;

/// Failures in a row without a byte between them.
const TRIES: u32 = 5;

#[tokio::main]
async fn main() -> ExitCode {
    portolan_examples::start("usage: download URL FILE", 2, run).await
}

/// What it does with the words that it was called with.
pub async fn run(args: Vec<String>) -> Result<()> {
    let (url, path) = (&args[0], &args[1]);
    // The bytes of the wire are counted, so none are to be undone.
    let client = Client::builder().decompression(None).build()?;
    let mut download = Download::open(path).await?;
    let mut failures = 0;
    loop {
        let before = download.received;
        let Err(error) = download.go_on(&client, url).await else { break };
        failures = if download.received > before { 1 } else { failures + 1 };
        let curable = matches!(error.kind(), Kind::Connect | Kind::Closed | Kind::Timeout);
        if !curable || failures >= TRIES {
            return download.give_up(error).await;
        }
        eprintln!("\n{error}; going on at {}", download.received);
        clock::sleep(Duration::from_secs(1)).await;
    }
    eprintln!("\n{} bytes in {path}", download.received);
    download.finish(path).await
}

/// A file that is there in part, and what the server must still have for the rest to fit.
struct Download {
    part: String,
    note: String,
    file: fs::File,
    received: u64,
    resume: Option<Resume>,
}

impl Download {
    /// What an earlier run left, or nothing.
    async fn open(path: &str) -> Result<Self> {
        let (part, note) = (format!("{path}.part"), format!("{path}.part.resume"));
        let mut options = fs::OpenOptions::new();
        let file = options.create(true).append(true).open(&part).await.map_err(unwritable)?;
        let received = file.metadata().await.map_err(unwritable)?.len();
        let mut resume = fs::read_to_string(&note).await.ok().and_then(|text| Resume::from_text(&text));
        if let Some(resume) = &mut resume {
            resume.advance(received);
        }
        Ok(Self { part, note, file, received, resume: resume.filter(|_| received > 0) })
    }

    /// Asks for what is missing, or for all of it, until the body ends.
    async fn go_on(&mut self, client: &Client, url: &str) -> Result<()> {
        let mut request = client.get(url).build()?;
        if let Some(resume) = &self.resume {
            resume.ask(request.headers_mut());
        }
        let mut response = client.execute(request).await?;
        match &mut self.resume {
            Some(resume) => match resume.judge(response.parts())? {
                Resumed::Complete => return Ok(()),
                Resumed::GoesOn => {}
                _ => self.begin(response.parts()).await?,
            },
            None => {
                response.error_for_status_ref()?;
                self.begin(response.parts()).await?;
            }
        }
        let total = self.resume.as_ref().and_then(Resume::length).or(response.content_length());
        while let Some(data) = response.chunk().await? {
            self.file.write_all(&data).await.map_err(unwritable)?;
            self.received += data.len() as u64;
            if let Some(resume) = &mut self.resume {
                resume.advance(data.len() as u64);
            }
            bar(self.received, total);
        }
        self.file.flush().await.map_err(unwritable)
    }

    /// From the first byte: there was nothing, or it is another file now.
    async fn begin(&mut self, head: &http::response::Parts) -> Result<()> {
        self.file.set_len(0).await.map_err(unwritable)?;
        (self.received, self.resume) = (0, Resume::new(head));
        match &self.resume {
            Some(resume) => fs::write(&self.note, resume.to_text()).await.map_err(unwritable),
            None => self.forget().await,
        }
    }

    /// What there is stays for the next run, if there is anything.
    async fn give_up(self, error: Error) -> Result<()> {
        if self.received == 0 {
            fs::remove_file(&self.part).await.map_err(unwritable)?;
            self.forget().await?;
        }
        Err(error)
    }

    async fn finish(self, path: &str) -> Result<()> {
        fs::rename(&self.part, path).await.map_err(unwritable)?;
        self.forget().await
    }

    async fn forget(&self) -> Result<()> {
        match fs::remove_file(&self.note).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(unwritable(error)),
            _ => Ok(()),
        }
    }
}

fn unwritable(error: std::io::Error) -> Error {
    Error::usage("the file can't be written").with_source(error)
}

fn bar(received: u64, total: Option<u64>) {
    match total.filter(|total| *total > 0) {
        Some(total) => {
            let share = (received.saturating_mul(40) / total).min(40) as usize;
            eprint!("\r[{:<40}] {:>3}%", "=".repeat(share), received.saturating_mul(100) / total);
        }
        None => eprint!("\r{received} bytes"),
    }
    let _ = std::io::stderr().flush();
}
