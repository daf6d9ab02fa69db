//! The servers: started again and again, then put under load in turns.

use crate::{
    Effort, Subject,
    figures::Series,
    load::load,
    servers::{self, Server},
};

/// Connections at once.
pub(crate) const CONNECTIONS: [usize; 3] = [1, 8, 64];

/// What a server did with a number of connections: a figure a round each.
#[derive(Default)]
pub(crate) struct UnderLoad {
    /// Answers per second.
    pub(crate) throughput: Series,
    /// Milliseconds that the median answer took.
    pub(crate) median: Series,
    /// Milliseconds that 95 of a hundred answers took at most.
    pub(crate) p95: Series,
    /// Resident memory in MB when half the time was over.
    pub(crate) memory: Series,
    /// Answers that were refusals, of all rounds.
    pub(crate) refused: usize,
}

/// A server, and what it did.
pub(crate) struct Measured {
    pub(crate) server: Server,
    /// Milliseconds to ready.
    pub(crate) until_ready: Series,
    /// Milliseconds to the first label.
    pub(crate) until_label: Series,
    /// One for each of [`CONNECTIONS`].
    pub(crate) under_load: [UnderLoad; 3],
    /// The most resident memory of the whole run, in MB.
    pub(crate) most_memory: f64,
}

impl Measured {
    fn new(server: Server) -> Self {
        let (until_ready, until_label, under_load) = Default::default();
        Self { server, until_ready, until_label, under_load, most_memory: 0.0 }
    }
}

/// Starts every server several times, then lets them answer in turns.
pub(crate) fn measure(subject: &Subject, effort: &Effort, notes: &mut Vec<String>) -> Vec<Measured> {
    let mut all: Vec<Measured> = servers::all(subject, notes).into_iter().map(Measured::new).collect();
    // One start that does not count: the first reads its files from the disk.
    let label = all.iter().map(|one| one.server.start().label.clone()).reduce(|label, other| {
        assert_eq!(label, other, "the servers do not agree on the picture");
        label
    });
    assert!(label.is_some_and(|label| !label.is_empty()));
    for _ in 0..effort.starts {
        for one in &mut all {
            let running = one.server.start();
            one.until_ready.add(running.until_ready.as_secs_f64() * 1e3);
            one.until_label.add(running.until_label.as_secs_f64() * 1e3);
        }
    }

    // All run at once, and only one has anything to do.
    let running: Vec<_> = all.iter().map(|one| one.server.start()).collect();
    for _ in 0..effort.http_rounds {
        for (index, connections) in CONNECTIONS.into_iter().enumerate() {
            for (one, running) in all.iter_mut().zip(&running) {
                let under_load = &mut one.under_load[index];
                let sample = || under_load.memory.add(running.memory().0);
                let load = load(running.address, &one.server.request, connections, effort.http_slice, sample);
                under_load.throughput.add(load.throughput);
                under_load.median.add(load.durations.median());
                under_load.p95.add(load.durations.p95());
                under_load.refused += load.refused;
            }
        }
    }
    for (one, running) in all.iter_mut().zip(&running) {
        one.most_memory = running.memory().1;
    }
    all
}
