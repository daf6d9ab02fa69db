//! Lists a bucket on disk with folders and files that the user of the process may not read.
//!
//! The listing runs in a separate process, because root may read everything.
#![cfg(unix)]

use std::{
    env,
    fs::{self, Permissions},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    process::Command,
};

use bytes::Bytes;
use platform::{
    bucket::{Bucket, BucketError, BucketListing, DiskBucket, ObjectName},
    telemetry::{self, LogFormat},
};
use rustix::process::geteuid;

/// Name of the test that runs in the separate process.
const LISTING_TEST: &str = "listing_for_the_other_test";
/// Environment variable that is set only in the separate process.
const VARIABLE: &str = "LIST_UNREADABLE_BUCKET";
/// A user who is not root, and the user's group.
const NOBODY: u32 = 65534;

#[tokio::test]
#[ignore = "the other test starts it in a separate process"]
async fn listing_for_the_other_test() {
    if env::var_os(VARIABLE).is_none() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let bucket = DiskBucket::open(root.path()).await.unwrap();
    let names = ["closed/a", "file/a", "file/b", "open/a", "unsearchable/a"]
        .map(|name| ObjectName::new(name).unwrap());
    for name in &names {
        bucket.create(name, Bytes::from_static(b"x"), "text/plain").await.unwrap();
    }
    let set_mode =
        |path: &str, mode| fs::set_permissions(root.path().join(path), Permissions::from_mode(mode)).unwrap();
    let unreadable = [("closed", 0o000), ("file/a", 0o200), ("unsearchable", 0o400)];
    for (path, mode) in unreadable {
        set_mode(path, mode);
    }

    telemetry::init("warn", LogFormat::Json);
    let mut listing = bucket.list().await.unwrap();
    let mut listed = Vec::new();
    loop {
        let page = listing.next_page(1).await.unwrap();
        if page.is_empty() {
            break;
        }
        listed.extend(page);
    }
    listed.sort_unstable();
    assert_eq!(listed, [names[2].clone(), names[3].clone()]);

    let error = bucket.read(&names[1], 9).await.unwrap_err();
    assert!(error.is_permission_denied(), "{error:?}");
    assert!(!BucketError::NotFound(String::new()).is_permission_denied());
    // The folder can be removed only if its owner may read it.
    for (path, _) in unreadable {
        set_mode(path, 0o700);
    }
}

#[test]
fn listing_leaves_out_what_may_not_be_read_and_warns_once() {
    let mut command = if geteuid().is_root() {
        // The other user may not reach the program by its path.
        let mut command = Command::new("/proc/self/exe");
        command.uid(NOBODY).gid(NOBODY);
        command
    } else {
        Command::new(env::current_exe().unwrap())
    };
    let arguments = ["--exact", LISTING_TEST, "--ignored", "--nocapture"];
    let output = command.args(arguments).env(VARIABLE, "1").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let log = String::from_utf8(output.stderr).unwrap();
    assert_eq!(log.matches("is not listed").count(), 1, "{log}");
}
