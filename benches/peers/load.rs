//! Puts an HTTP server under load with clients that repeat one request over connections that stay open.
//!
//! The clients and the server share two cores. Each client is a thread with a plain socket, which needs
//! little CPU time, and the same CPU time for every server. Most of the CPU time is left to the server.

use std::{
    io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write},
    net::{SocketAddr, TcpStream},
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use bench_harness::{Series, milliseconds};

/// Longest time that a client waits for data. Only a server that hangs reaches this timeout.
const READ_TIMEOUT: Duration = Duration::from_secs(120);

/// An HTTP connection that stays open between requests.
pub(crate) struct Connection(BufReader<TcpStream>);

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(READ_TIMEOUT))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Sends a complete request, and returns the status and the body of the response.
    pub(crate) fn send(&mut self, request: &[u8]) -> Result<(u16, Vec<u8>)> {
        self.0.get_mut().write_all(request)?;
        let status_line = self.read_line()?;
        let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let mut body_length = None;
        loop {
            let header = self.read_line()?;
            if header.is_empty() {
                break;
            }
            if let Some((name, value)) = header.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                body_length = value.trim().parse().ok();
            }
        }
        let (Some(status), Some(body_length)) = (status, body_length) else {
            return Err(Error::new(
                ErrorKind::InvalidData,
                "the response has no valid status or no valid Content-Length",
            ));
        };
        let mut body = vec![0; body_length];
        self.0.read_exact(&mut body)?;
        Ok((status, body))
    }

    /// Reads a line and removes its line break.
    fn read_line(&mut self) -> Result<String> {
        let mut line = String::new();
        match self.0.read_line(&mut line)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }
}

/// Measurements of one period of load.
pub(crate) struct Load {
    /// Number of responses with status 200 per second.
    pub(crate) throughput: f64,
    /// Milliseconds from each request to its response with status 200.
    pub(crate) durations: Series,
    /// Number of responses with a status other than 200.
    pub(crate) other_status_count: usize,
}

/// Repeats a request on each of `connection_count` connections for `load_duration`.
///
/// `at_half_time` is called once, after half of `load_duration`.
pub(crate) fn put_under_load(
    address: SocketAddr,
    request: &[u8],
    connection_count: usize,
    load_duration: Duration,
    at_half_time: impl FnOnce(),
) -> Load {
    let barrier = Barrier::new(connection_count + 1);
    let client = || {
        let mut connection = Connection::open(address).unwrap();
        barrier.wait();
        let start = Instant::now();
        let (mut durations, mut other_status_count) = (Vec::new(), 0);
        while start.elapsed() < load_duration {
            let sent_at = Instant::now();
            match connection.send(request).unwrap() {
                (200, _) => durations.push(sent_at.elapsed()),
                _ => other_status_count += 1,
            }
        }
        (durations, other_status_count)
    };
    let (wall, results) = thread::scope(|scope| {
        let clients: Vec<_> = (0..connection_count).map(|_| scope.spawn(client)).collect();
        barrier.wait();
        let start = Instant::now();
        thread::sleep(load_duration / 2);
        at_half_time();
        let results: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
        (start.elapsed(), results)
    });
    let other_status_count = results.iter().map(|(_, count)| count).sum();
    let durations: Vec<Duration> = results.into_iter().flat_map(|(durations, _)| durations).collect();
    assert!(
        !durations.is_empty(),
        "{address}: no response has status 200, {other_status_count} responses have another status"
    );
    Load {
        throughput: durations.len() as f64 / wall.as_secs_f64(),
        durations: durations.into_iter().map(milliseconds).collect(),
        other_status_count,
    }
}
