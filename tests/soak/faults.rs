//! The disk of the program: a small tmpfs that fills up and becomes read-only from time to time.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::Soak;

/// Size of the tmpfs.
const DISK_SIZE: &str = "1g";
/// Maximum time for making the bucket read-only. The kernel refuses it while the program writes to a file.
const REMOUNT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time after a fault during which the program may still end because of the fault.
const RECOVERY_TIME: Duration = Duration::from_secs(3);
/// Interval between two attempts to fill the space that the program has freed.
const BALLAST_INTERVAL: Duration = Duration::from_millis(100);

/// The disk with the data folder of the program.
pub(crate) struct Disk {
    folder: TempDir,
    /// Error that kept this process from mounting a tmpfs for the data folder.
    no_tmpfs: Option<String>,
    /// Error that kept this process from mounting the bucket separately. The bucket then stays writable.
    no_bind_mount: Option<String>,
    is_broken: AtomicBool,
    pub(crate) full_count: AtomicUsize,
    pub(crate) read_only_count: AtomicUsize,
}

impl Disk {
    /// Creates the data folder, on a tmpfs if this process may mount one.
    pub(crate) fn create() -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let data_folder = folder.path().join("data");
        create_private_folder(&data_folder);
        let options = format!("size={DISK_SIZE},mode=0700");
        let no_tmpfs = run("mount", &["-t", "tmpfs", "-o", &options, "soak"], &data_folder).err();
        // The bucket is a mount of its own, because the kernel refuses to make a mount read-only while a file
        // in it is open for writing, as the file of the topic always is.
        let bucket = data_folder.join("bucket");
        create_private_folder(&bucket);
        let no_bind_mount = run("mount", &["--bind", bucket.to_str().unwrap()], &bucket).err();
        Self {
            folder,
            no_tmpfs,
            no_bind_mount,
            is_broken: AtomicBool::new(false),
            full_count: AtomicUsize::new(0),
            read_only_count: AtomicUsize::new(0),
        }
    }

    pub(crate) fn data_folder(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn bucket(&self) -> PathBuf {
        self.data_folder().join("bucket")
    }

    /// Returns the path of the stored picture of an upload.
    pub(crate) fn image_path(&self, id: &str) -> PathBuf {
        self.bucket().join(id).join("image.jpg")
    }

    /// Returns true if the disk has a fault or had one a moment ago.
    pub(crate) fn is_broken(&self) -> bool {
        self.is_broken.load(Ordering::SeqCst)
    }

    /// Returns true if the disk has a limited size, so that it can be filled.
    pub(crate) fn can_fill_up(&self) -> bool {
        self.no_tmpfs.is_none()
    }

    /// Returns true if the bucket is a mount that can become read-only.
    pub(crate) fn can_become_read_only(&self) -> bool {
        self.no_bind_mount.is_none()
    }

    /// Returns a sentence for each fault that cannot happen on this machine.
    pub(crate) fn skipped_faults(&self) -> Vec<String> {
        let full = self.no_tmpfs.iter().map(|error| format!("soak: a disk that fills up: {error}"));
        let read_only = self.no_bind_mount.iter().map(|error| format!("soak: a read-only bucket: {error}"));
        full.chain(read_only).collect()
    }

    pub(crate) fn unmount(&self) {
        if self.can_become_read_only() {
            run("umount", &["--lazy"], &self.bucket()).unwrap();
        }
        if self.can_fill_up() {
            run("umount", &["--lazy"], &self.data_folder()).unwrap();
        }
    }

    /// Fills the disk completely for `duration`.
    async fn fill(&self, duration: Duration) {
        let path = self.data_folder().join("ballast");
        let mut ballast = File::create(&path).unwrap();
        let end = Instant::now() + duration;
        while Instant::now() < end {
            tokio::task::block_in_place(|| {
                for block_size in [1 << 20, 4 << 10] {
                    let block = vec![0; block_size];
                    // The write that does not fit ends the loop.
                    while ballast.write_all(&block).is_ok() {}
                }
            });
            tokio::time::sleep(BALLAST_INTERVAL).await;
        }
        fs::remove_file(path).unwrap();
        self.full_count.fetch_add(1, Ordering::SeqCst);
    }

    /// Makes the bucket read-only for `duration`.
    async fn make_read_only(&self, duration: Duration) {
        let remount = |mode: &str| run("mount", &["-o", &format!("remount,bind,{mode}")], &self.bucket());
        let deadline = Instant::now() + REMOUNT_TIMEOUT;
        while remount("ro").is_err() {
            if Instant::now() > deadline {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(duration).await;
        remount("rw").unwrap();
        self.read_only_count.fetch_add(1, Ordering::SeqCst);
    }
}

/// Starts the task that breaks the disk in turns: full, then a read-only bucket.
pub(crate) fn spawn(soak: &Arc<Soak>, mut rng: fastrand::Rng, stop: &CancellationToken) -> JoinHandle<()> {
    let (soak, stop) = (soak.clone(), stop.clone());
    tokio::spawn(async move {
        let disk = &soak.disk;
        let mut seconds = move |range| Duration::from_secs(rng.u64(range));
        for turn in 0.. {
            let pause = tokio::time::sleep(seconds(4..10));
            if stop.run_until_cancelled(pause).await.is_none() {
                return;
            }
            // A fault is never cut short, so that the disk is whole when this task ends.
            disk.is_broken.store(true, Ordering::SeqCst);
            if turn % 2 == 0 && disk.can_fill_up() {
                disk.fill(seconds(3..6)).await;
            } else if turn % 2 == 1 && disk.can_become_read_only() {
                disk.make_read_only(seconds(3..6)).await;
            }
            tokio::time::sleep(RECOVERY_TIME).await;
            disk.is_broken.store(false, Ordering::SeqCst);
        }
    })
}

fn create_private_folder(path: &Path) {
    DirBuilder::new().mode(0o700).create(path).unwrap();
}

/// Runs a program with `path` as its last argument. If the program fails, returns the first line of its error.
fn run(program: &str, arguments: &[&str], path: &Path) -> Result<(), String> {
    let output = Command::new(program)
        .args(arguments)
        .arg(path)
        .output()
        .map_err(|error: io::Error| format!("cannot run {program}: {error}"))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default().to_owned())
    }
}
