//! This project as a worker; see `worker.py`. What a line asks for is done on each of its threads.

use std::{collections::HashMap, fs, io::stdin, time::Instant};

use cpu_time::ProcessTime;
use preprocess::{
    Settings,
    image::{self, Recipe},
};

/// What makes a worker of this program; the number of threads comes behind it.
pub(crate) const ARGUMENT: &str = "--worker";

/// What the stored picture is.
pub(crate) fn recipe() -> Recipe {
    Settings::default().recipe()
}

/// Answers lines until there are no more.
pub(crate) fn serve(threads: usize) {
    // The service's own threads are a pool of rayon's, too.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let recipe = recipe();
    let mut loaded = HashMap::new();
    println!("ready this project, {} build", crate::BUILD);
    for line in stdin().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["load", file, _, _] => {
                loaded.insert(file.to_owned(), fs::read(file).unwrap());
                println!("done");
            }
            ["run", file, times] => {
                let (bytes, times) = (&loaded[file], times.parse().unwrap());
                let (started, used) = (Instant::now(), ProcessTime::now());
                pool.broadcast(|_| (0..times).for_each(|_: usize| drop(jpeg(bytes, &recipe))));
                println!("{} {}", used.elapsed().as_nanos(), started.elapsed().as_nanos());
            }
            ["jpeg", file, to] => {
                fs::write(to, jpeg(&loaded[file], &recipe)).unwrap();
                println!("done");
            }
            ["pixels", file, to] => {
                fs::write(to, image::pixels(&loaded[file], &recipe).unwrap().as_raw()).unwrap();
                println!("done");
            }
            _ => panic!("not a command: {line:?}"),
        }
    }
}

fn jpeg(bytes: &[u8], recipe: &Recipe) -> impl AsRef<[u8]> + use<> {
    image::process(bytes, recipe).unwrap().jpeg
}
