//! [`send`] sends a request whose body is framed as the test chooses. It is for tests of the services.
#![expect(clippy::expect_used, reason = "a failed expectation fails the test that uses this client")]

use std::net::SocketAddr;

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

/// Number of bytes in a chunk of a body without an announced length.
const CHUNK_BYTES: usize = 64 << 10;

/// Framing of a request body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// The header Content-Length announces the length. The client sends the body only after the server has
    /// asked for it (`Expect: 100-continue`), so the response to a refused body is never lost.
    ContentLength,
    /// The body is sent in chunks, and its length is not announced.
    Chunked,
}

impl Framing {
    /// Both framings.
    pub const ALL: [Self; 2] = [Self::ContentLength, Self::Chunked];
}

/// Sends a `POST` request and returns the status and the body of the response.
///
/// # Panics
/// Panics when the connection fails or the response is not HTTP.
pub async fn send(
    address: SocketAddr,
    path: &str,
    content_type: &str,
    framing: Framing,
    body: &[u8],
) -> (u16, String) {
    let mut stream =
        BufReader::new(TcpStream::connect(address).await.expect("the server accepts connections"));
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Type: {content_type}\r\n"
    );
    let framing_headers = match framing {
        Framing::ContentLength => format!("Content-Length: {}\r\nExpect: 100-continue\r\n\r\n", body.len()),
        Framing::Chunked => "Transfer-Encoding: chunked\r\n\r\n".to_owned(),
    };
    stream.write_all(format!("{head}{framing_headers}").as_bytes()).await.expect("the head is sent");
    let mut status = match framing {
        Framing::ContentLength => read_head(&mut stream).await,
        Framing::Chunked => {
            for chunk in body.chunks(CHUNK_BYTES) {
                let size = format!("{:x}\r\n", chunk.len());
                let framed = [size.as_bytes(), chunk, b"\r\n"].concat();
                stream.write_all(&framed).await.expect("a chunk is sent");
            }
            stream.write_all(b"0\r\n\r\n").await.expect("the last chunk is sent");
            read_head(&mut stream).await
        }
    };
    if status == 100 {
        stream.write_all(body).await.expect("the body is sent");
        status = read_head(&mut stream).await;
    }
    let mut response = String::new();
    stream.read_to_string(&mut response).await.expect("the response is text");
    (status, response)
}

/// Reads the status line and the headers of a response, and returns the status.
async fn read_head(stream: &mut BufReader<TcpStream>) -> u16 {
    let mut status_line = String::new();
    stream.read_line(&mut status_line).await.expect("the server responds");
    let status = status_line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let mut header = String::new();
    while header != "\r\n" {
        header.clear();
        assert!(stream.read_line(&mut header).await.expect("the server responds") > 0, "the head is cut off");
    }
    status.expect("a status")
}
