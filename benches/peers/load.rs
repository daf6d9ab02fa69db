//! HTTP clients that send one request again and again over connections that stay open.
//!
//! The clients are threads with plain sockets: they need little of the two cores, and the same for every
//! server.

use std::{
    io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write},
    net::{SocketAddr, TcpStream},
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use bench_harness::{Series, milliseconds};

/// Read timeout; only a server that hangs reaches it.
const READ_TIMEOUT: Duration = Duration::from_secs(120);

/// A connection that stays open between requests.
pub(crate) struct Connection(BufReader<TcpStream>);

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(READ_TIMEOUT))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Sends a whole request and reads the status and body of its response.
    pub(crate) fn send(&mut self, request: &[u8]) -> Result<(u16, Vec<u8>)> {
        self.0.get_mut().write_all(request)?;
        let status = self.read_line()?;
        let status = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let mut length = None;
        loop {
            let header = self.read_line()?;
            if header.is_empty() {
                break;
            }
            if let Some((name, value)) = header.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().ok();
            }
        }
        let (Some(status), Some(length)) = (status, length) else {
            return Err(Error::new(ErrorKind::InvalidData, "a response without status or length"));
        };
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok((status, body))
    }

    fn read_line(&mut self) -> Result<String> {
        let mut line = String::new();
        match self.0.read_line(&mut line)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }
}

/// Responses of a server under load.
pub(crate) struct Load {
    /// Responses of status 200 per second.
    pub(crate) throughput: f64,
    /// Milliseconds to each response of status 200.
    pub(crate) durations: Series,
    /// Responses of any other status.
    pub(crate) refused: usize,
}

/// Repeats a request on `connections` connections for `slice`; calls `sample` halfway.
pub(crate) fn put_under_load(
    address: SocketAddr,
    request: &[u8],
    connections: usize,
    slice: Duration,
    sample: impl FnOnce(),
) -> Load {
    let barrier = Barrier::new(connections + 1);
    let client = || {
        let mut connection = Connection::open(address).unwrap();
        barrier.wait();
        let start = Instant::now();
        let (mut durations, mut refused) = (Vec::new(), 0);
        while start.elapsed() < slice {
            let sent = Instant::now();
            match connection.send(request).unwrap() {
                (200, _) => durations.push(sent.elapsed()),
                _ => refused += 1,
            }
        }
        (durations, refused)
    };
    let (wall, clients) = thread::scope(|scope| {
        let clients: Vec<_> = (0..connections).map(|_| scope.spawn(client)).collect();
        barrier.wait();
        let start = Instant::now();
        thread::sleep(slice / 2);
        sample();
        let clients: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
        (start.elapsed(), clients)
    });
    let refused = clients.iter().map(|(_, refused)| refused).sum();
    let durations: Vec<Duration> = clients.into_iter().flat_map(|(durations, _)| durations).collect();
    assert!(!durations.is_empty(), "{address}: {refused} refusals and no answer");
    Load {
        throughput: durations.len() as f64 / wall.as_secs_f64(),
        durations: durations.into_iter().map(milliseconds).collect(),
        refused,
    }
}
