use bytes::Bytes;
use http::HeaderValue;
use http::header::{CONTENT_DISPOSITION, HeaderName};
use http_body::Body as _;
use http_body_util::{BodyExt, Full};
use portolan_core::{Kind, Result};
use tokio::io::AsyncReadExt;

use super::{Form, FormBody, Part};

fn encode(form: Form) -> FormBody {
    form.encode_with("XXX").unwrap().1
}

async fn text(body: FormBody) -> Result<String> {
    Ok(String::from_utf8(body.collect().await?.to_bytes().to_vec()).unwrap())
}

#[tokio::test]
async fn a_form_looks_as_browsers_write_it() {
    let pdf = Part::bytes("%PDF").with_file_name("c.pdf").with_content_type("application/pdf").unwrap();
    let form = Form::new().text("title", "A chart\nof \"all\"").part("file", pdf);
    let form = form.part("raw", Part::bytes("\0\r\n--XX").with_file_name(""));
    let expected = "--XXX\r\nContent-Disposition: form-data; name=\"title\"\r\n\r\nA chart\nof \"all\"\r\n\
         --XXX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"c.pdf\"\r\nContent-Type: application/pdf\r\n\r\n%PDF\r\n\
         --XXX\r\nContent-Disposition: form-data; name=\"raw\"; filename=\"\"\r\nContent-Type: application/octet-stream\r\n\r\n\
         \0\r\n--XX\r\n--XXX--\r\n";
    let body = encode(form);
    assert_eq!(body.size_hint().exact(), Some(expected.len() as u64));
    assert_eq!(body.to_bytes().unwrap(), expected);
    assert_eq!(text(body.try_clone().unwrap()).await.unwrap(), expected);
    assert_eq!(text(body).await.unwrap(), expected);
}

#[tokio::test]
async fn an_empty_form_is_its_last_boundary() {
    assert_eq!(text(encode(Form::new())).await.unwrap(), "--XXX--\r\n");
}

#[tokio::test]
async fn no_name_can_end_its_header() {
    let part = Part::text("x").with_file_name("ä\"\r\nX-Evil: 1\r\n\r\n\0.txt");
    let head = text(encode(Form::new().part("n\"\r\nX: y", part))).await.unwrap();
    assert!(head.starts_with(
        "--XXX\r\nContent-Disposition: form-data; name=\"n%22%0D%0AX: y\"; \
         filename=\"ä%22%0D%0AX-Evil: 1%0D%0A%0D%0A%00.txt\"\r\nContent-Type"
    ));
}

#[tokio::test]
async fn streams_and_readers_are_sent_with_and_without_a_length() {
    let form = || Form::new().part("a", Part::body(Full::new(Bytes::from("from a body"))));
    let sized = encode(form().part("b", Part::reader_with_length(&b"0123456789"[..], 10)));
    let length = sized.size_hint().exact().unwrap();
    assert!(sized.try_clone().is_none() && sized.to_bytes().is_none());
    let whole = text(sized).await.unwrap();
    assert_eq!(whole.len() as u64, length);
    assert!(whole.contains("\r\n\r\nfrom a body\r\n--XXX") && whole.contains("\r\n\r\n0123456789\r\n--XXX--"));

    let open = encode(form().part("b", Part::reader(tokio::io::repeat(b'x').take(100_000))));
    assert_eq!((open.size_hint().exact(), open.size_hint().lower() > 11), (None, true));
    assert!(text(open).await.unwrap().contains(&"x".repeat(100_000)));
}

#[tokio::test]
async fn the_hint_shrinks_as_the_form_is_sent() {
    let mut body = encode(Form::new().part("b", Part::reader_with_length(&b"0123456789"[..], 10)));
    let mut left = body.size_hint().exact().unwrap();
    while let Some(frame) = body.frame().await {
        left -= frame.unwrap().into_data().unwrap().len() as u64;
        assert_eq!(body.size_hint().exact(), Some(left));
    }
    assert!(left == 0 && body.is_end_stream());
}

#[tokio::test]
async fn a_part_that_is_not_as_long_as_it_said_is_an_error() {
    for length in [9, 11] {
        let mut body = encode(Form::new().part("b", Part::reader_with_length(&b"0123456789"[..], length)));
        let error = loop {
            match body.frame().await.expect("an error comes first") {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), Kind::Usage, "{length}");
        assert!(body.frame().await.is_none());
    }
}

#[tokio::test]
async fn a_reader_that_fails_ends_the_form_with_its_error() {
    let broken = broken_reader();
    let error = text(encode(Form::new().part("b", Part::reader(broken)))).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Usage);
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("disk on fire"));
}

fn broken_reader() -> impl tokio::io::AsyncRead {
    let chunks = Failing(Some(std::io::Error::other("disk on fire")));
    tokio_util::io::StreamReader::new(chunks)
}

struct Failing(Option<std::io::Error>);

impl futures_core::Stream for Failing {
    type Item = std::io::Result<Bytes>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        std::task::Poll::Ready(self.0.take().map(Err))
    }
}

#[test]
fn a_part_has_the_headers_it_was_given_but_not_the_one_that_is_ours() {
    let part = Part::text("x").with_header(HeaderName::from_static("x-id"), HeaderValue::from_static("7")).unwrap();
    let whole = encode(Form::new().part("a", part)).to_bytes().unwrap();
    assert!(std::str::from_utf8(&whole).unwrap().contains("name=\"a\"\r\nx-id: 7\r\n\r\nx"));
    assert!(Part::text("x").with_header(CONTENT_DISPOSITION, HeaderValue::from_static("x")).is_err());
    assert!(Part::text("x").with_content_type("a/b\r\nX: y").is_err());
}

#[test]
fn boundaries_differ_and_are_allowed() {
    let boundary = || Form::new().encode().unwrap().0.to_str().unwrap().rsplit_once('=').unwrap().1.to_owned();
    let (one, two) = (boundary(), boundary());
    assert!(one != two && one.len() == 32 && one.bytes().all(|byte| byte.is_ascii_hexdigit()));
}
