//! Clients that send the same request again and again, over connections that stay open. They are threads
//! with plain sockets: what they use of the two cores is little, and the same for every server.

use std::{
    io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write},
    net::{SocketAddr, TcpStream},
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use crate::figures::Series;

/// A bound on a hang, nothing else.
const PATIENCE: Duration = Duration::from_secs(120);

/// A connection that is kept open.
pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends a whole request and reads its answer: status and body.
    pub(crate) fn ask(&mut self, request: &[u8]) -> Result<(u16, Vec<u8>)> {
        self.stream.get_mut().write_all(request)?;
        let status = self.line()?;
        let status = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| broken("no status"))?;
        let mut length = None;
        loop {
            let header = self.line()?;
            if header.is_empty() {
                break;
            }
            if let Some((name, value)) = header.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().ok();
            }
        }
        let mut body = vec![0; length.ok_or_else(|| broken("no length"))?];
        self.stream.read_exact(&mut body)?;
        Ok((status, body))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}

fn broken(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}

/// What a server did under load.
pub(crate) struct Load {
    /// Answers of status 200 per second.
    pub(crate) throughput: f64,
    /// Milliseconds of each of them.
    pub(crate) durations: Series,
    /// Answers of another status.
    pub(crate) refused: usize,
}

/// Keeps so many `connections` busy with `request` for the time of `slice`, and calls `sample` when half
/// of it is over.
pub(crate) fn load(
    address: SocketAddr,
    request: &[u8],
    connections: usize,
    slice: Duration,
    sample: impl FnOnce(),
) -> Load {
    let together = Barrier::new(connections + 1);
    let client = || {
        let mut connection = Connection::open(address).unwrap();
        together.wait();
        let start = Instant::now();
        let (mut durations, mut refused) = (Vec::new(), 0);
        while start.elapsed() < slice {
            let sent = Instant::now();
            match connection.ask(request).unwrap() {
                (200, _) => durations.push(sent.elapsed()),
                _ => refused += 1,
            }
        }
        (durations, refused)
    };
    let (wall, clients) = thread::scope(|scope| {
        let clients: Vec<_> = (0..connections).map(|_| scope.spawn(client)).collect();
        together.wait();
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
        durations: durations.iter().map(|duration| duration.as_secs_f64() * 1e3).collect(),
        refused,
    }
}
