use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
};

use super::*;
use crate::bucket::conformance;

fn object_name(text: &str) -> ObjectName {
    ObjectName::new(text).unwrap()
}

fn temp_file_count(root: &Path) -> usize {
    fs::read_dir(root.join(TEMP_FOLDER_NAME)).unwrap().count()
}

#[tokio::test]
async fn bucket_passes_the_conformance_suite() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("not/there/yet");
    conformance::check(&DiskBucket::open(&root).await.unwrap()).await;
    assert_eq!(temp_file_count(&root), 0);
}

#[tokio::test]
async fn listing_passes_the_conformance_suite() {
    let folder = tempfile::tempdir().unwrap();
    conformance::check_listing(&DiskBucket::open(folder.path()).await.unwrap()).await;
}

#[tokio::test]
async fn listing_leaves_out_everything_that_is_not_an_object() {
    let folder = tempfile::tempdir().unwrap();
    let bucket = DiskBucket::open(folder.path()).await.unwrap();
    bucket.create(&object_name("a/b"), Bytes::new(), "text/plain").await.unwrap();
    let at = |path: &str| folder.path().join(path);
    fs::write(at(".tmp/unfinished"), "ha").unwrap();
    fs::create_dir(at("empty")).unwrap();
    fs::write(at("not\nan object"), "ha").unwrap();
    symlink(at("a"), at("folder-link")).unwrap();
    symlink(at("a/b"), at("file-link")).unwrap();
    assert_eq!(list(&bucket).await, [object_name("a/b")]);
}

#[tokio::test]
async fn page_does_not_read_what_lies_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let bucket = DiskBucket::open(folder.path()).await.unwrap();
    for number in 0..10 {
        bucket.create(&object_name(&format!("{number}/a")), Bytes::new(), "text/plain").await.unwrap();
    }
    let mut listing = bucket.list().await.unwrap();
    let first = listing.next_page(1).await.unwrap();
    // A page that began at the root again would find the folder of the first page empty and a new one in its place.
    let first_folder = folder.path().join(first[0].as_str().strip_suffix("/a").unwrap());
    fs::remove_dir_all(&first_folder).unwrap();
    fs::create_dir(&first_folder).unwrap();
    fs::write(first_folder.join("b"), "").unwrap();
    let rest = listing.next_page(usize::MAX).await.unwrap();
    assert_eq!(rest.len(), 9);
    assert!(rest.iter().all(|name| name.as_str().ends_with("/a")), "{rest:?}");
}

/// Lists all objects, in ascending order of their names.
async fn list(bucket: &DiskBucket) -> Vec<ObjectName> {
    let mut names = bucket.list().await.unwrap().next_page(usize::MAX).await.unwrap();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn object_exists_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let bucket = DiskBucket::open(folder.path()).await.unwrap();
    bucket.create(&object_name("a/b"), Bytes::from_static(b"x"), "text/plain").await.unwrap();
    drop(bucket);
    let bucket = DiskBucket::open(folder.path()).await.unwrap();
    assert_eq!(bucket.read(&object_name("a/b"), 1).await.unwrap().data, "x");
}

#[tokio::test]
async fn damaged_object_is_replaced_and_then_read() {
    let folder = tempfile::tempdir().unwrap();
    let bucket = DiskBucket::open(folder.path()).await.unwrap();
    let path = |name: &ObjectName| folder.path().join(name.as_str());
    // Writing to an existing file keeps its attributes, as a failing disk does.
    let damage = |name: &ObjectName, data: Bytes| fs::write(path(name), data).unwrap();
    let store_without_checksum = |name: &ObjectName, data: Bytes| {
        fs::create_dir_all(path(name).parent().unwrap()).unwrap();
        fs::write(path(name), data).unwrap();
    };
    conformance::check_damage(&bucket, &damage, &store_without_checksum).await;
    assert_eq!(temp_file_count(folder.path()), 0);
}

#[tokio::test]
async fn file_that_another_program_moves_over_an_object_is_read_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let bucket = DiskBucket::open(folder.path()).await.unwrap();
    bucket.create(&object_name("a"), Bytes::from_static(b"first"), "text/plain").await.unwrap();
    fs::write(folder.path().join("copy"), "other content").unwrap();
    fs::rename(folder.path().join("copy"), folder.path().join("a")).unwrap();
    assert_eq!(bucket.read(&object_name("a"), 99).await.unwrap().data, "other content");
}

#[tokio::test]
async fn temporary_file_is_invisible() {
    let folder = tempfile::tempdir().unwrap();
    let bucket = DiskBucket::open(folder.path()).await.unwrap();
    fs::write(folder.path().join(TEMP_FOLDER_NAME).join("unfinished"), "ha").unwrap();
    let reserved_name = object_name(".tmp/unfinished");
    assert!(!bucket.exists(&reserved_name).await.unwrap());
    assert!(matches!(bucket.read(&reserved_name, 9).await, Err(BucketError::NotFound(_))));
    let created = bucket.create(&reserved_name, Bytes::new(), "text/plain").await;
    assert!(matches!(created, Err(BucketError::BadName { .. })), "{created:?}");
}

#[tokio::test]
async fn opening_removes_the_temporary_files_of_killed_writers_only() {
    let folder = tempfile::tempdir().unwrap();
    DiskBucket::open(folder.path()).await.unwrap();
    let temp_folder = Folder::open(&folder.path().join(TEMP_FOLDER_NAME)).unwrap();
    let being_written = TempFile::write(&temp_folder, b"ha", &Once::new()).unwrap();
    // A killed process leaves its file behind, and its lock is released.
    fs::write(folder.path().join(TEMP_FOLDER_NAME).join("abandoned"), "ha").unwrap();
    assert_eq!(temp_file_count(folder.path()), 2);
    let bucket = DiskBucket::open(folder.path()).await.unwrap();
    assert_eq!(temp_file_count(folder.path()), 1);
    let root = Folder::open(folder.path()).unwrap();
    being_written.link(&root, "object").unwrap();
    drop(being_written);
    assert_eq!(bucket.read(&object_name("object"), 9).await.unwrap().data, "ha");
    assert_eq!(temp_file_count(folder.path()), 0);
}

#[tokio::test]
async fn failed_write_leaves_no_folder_and_no_temporary_file() {
    let folder = tempfile::tempdir().unwrap();
    let bucket = DiskBucket::open(folder.path()).await.unwrap();
    // The folders of this name can be created, but the file cannot.
    let too_long = format!("new/folder/{}", "x".repeat(256));
    let created = bucket.create(&object_name(&too_long), Bytes::new(), "text/plain").await;
    assert!(matches!(created, Err(BucketError::BadName { .. })), "{created:?}");
    assert_eq!(temp_file_count(folder.path()), 0);
    // No temporary file can be created, as on a full disk.
    let temp_folder = folder.path().join(TEMP_FOLDER_NAME);
    fs::remove_dir(&temp_folder).unwrap();
    fs::write(&temp_folder, "").unwrap();
    let created = bucket.create(&object_name("new/object"), Bytes::new(), "text/plain").await;
    assert!(matches!(created, Err(BucketError::Unavailable(_))), "{created:?}");
    assert!(!folder.path().join("new").exists());
}

#[tokio::test]
async fn failed_write_keeps_a_folder_that_existed_or_is_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let bucket = DiskBucket::open(folder.path()).await.unwrap();
    fs::create_dir(folder.path().join("empty")).unwrap();
    let too_long = "x".repeat(256);
    for parent in ["empty", "empty/new"] {
        let name = object_name(&format!("{parent}/{too_long}"));
        let created = bucket.create(&name, Bytes::new(), "text/plain").await;
        assert!(matches!(created, Err(BucketError::BadName { .. })), "{created:?}");
    }
    assert_eq!(fs::read_dir(folder.path().join("empty")).unwrap().count(), 0);

    let name = object_name("a/b/c");
    let path = ObjectPath::new(&name).unwrap();
    let chain = FolderChain::create(Folder::open(folder.path()).unwrap(), &path).unwrap();
    fs::write(folder.path().join("a/other"), "").unwrap();
    chain.remove_new_folders();
    assert!(!folder.path().join("a/b").exists() && folder.path().join("a/other").exists());
}

#[tokio::test]
async fn symbolic_link_below_the_root_is_never_followed() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("image.jpg"), "secret").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let bucket = DiskBucket::open(folder.path()).await.unwrap();
    bucket.create(&object_name("id/image.jpg"), Bytes::new(), "image/jpeg").await.unwrap();
    symlink(outside.path().join("image.jpg"), folder.path().join("id/prediction.json")).unwrap();
    symlink(outside.path(), folder.path().join("linked-id")).unwrap();
    symlink(outside.path().join("missing"), folder.path().join("dangling")).unwrap();
    symlink("id", folder.path().join("link-inside")).unwrap();
    let data = || Bytes::from_static(b"new");
    for name in
        ["id/prediction.json", "linked-id/image.jpg", "linked-id/new", "dangling", "link-inside/image.jpg"]
    {
        let name = object_name(name);
        let errors = [
            bucket.read(&name, 99).await.map(drop),
            bucket.exists(&name).await.map(drop),
            bucket.create(&name, data(), "text/plain").await.map(drop),
            bucket.replace_if_broken(&name, data(), "text/plain", |_| false).await.map(drop),
        ];
        for error in errors {
            let Err(BucketError::Unavailable(reason)) = error else { panic!("{name}: {error:?}") };
            assert!(reason.to_string().contains("symbolic link"), "{name}: {reason}");
        }
    }
    assert_eq!(fs::read(outside.path().join("image.jpg")).unwrap(), b"secret");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    assert_eq!(list(&bucket).await, [object_name("id/image.jpg")]);
}

#[tokio::test]
async fn root_may_be_a_symbolic_link() {
    let folder = tempfile::tempdir().unwrap();
    let (target, link) = (folder.path().join("target"), folder.path().join("link"));
    fs::create_dir(&target).unwrap();
    symlink(&target, &link).unwrap();
    let bucket = DiskBucket::open(&link).await.unwrap();
    bucket.create(&object_name("a/b"), Bytes::from_static(b"x"), "text/plain").await.unwrap();
    assert_eq!(bucket.read(&object_name("a/b"), 1).await.unwrap().data, "x");
    assert_eq!(fs::read(target.join("a/b")).unwrap(), b"x");
}

// macOS has no `mknodat`.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn pipe_is_not_an_object_and_reading_it_does_not_wait() {
    let folder = tempfile::tempdir().unwrap();
    let bucket = DiskBucket::open(folder.path()).await.unwrap();
    let (path, mode) = (folder.path().join("pipe"), crate::private_folder::FILE_MODE);
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let name = object_name("pipe");
    let read = bucket.read(&name, 9).await;
    assert!(matches!(read, Err(BucketError::NotFound(_))), "{read:?}");
    assert!(!bucket.exists(&name).await.unwrap());
    let created = bucket.create(&name, Bytes::new(), "text/plain").await;
    assert!(matches!(created, Err(BucketError::BadName { .. })), "{created:?}");
}

#[tokio::test]
async fn only_the_owner_may_read_what_the_bucket_creates() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("new/bucket");
    let bucket = DiskBucket::open(&root).await.unwrap();
    bucket.create(&object_name("a/b/c"), Bytes::new(), "text/plain").await.unwrap();
    fs::write(root.join("a/old"), "").unwrap();
    bucket.replace_if_broken(&object_name("a/old"), Bytes::new(), "text/plain", |_| false).await.unwrap();
    let mode = |path: &str| fs::metadata(root.join(path)).unwrap().permissions().mode() & 0o777;
    for private_folder in ["..", ".", TEMP_FOLDER_NAME, "a", "a/b"] {
        assert_eq!(mode(private_folder), 0o700, "{private_folder}");
    }
    assert_eq!((mode("a/b/c"), mode("a/old")), (0o600, 0o600));
}

#[tokio::test]
async fn objects_of_a_missing_root_are_unavailable_and_not_absent() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("bucket");
    let bucket = DiskBucket::open(&root).await.unwrap();
    fs::remove_dir_all(&root).unwrap();
    let name = object_name("a/b");
    assert!(matches!(bucket.read(&name, 9).await, Err(BucketError::Unavailable(_))));
    assert!(matches!(bucket.exists(&name).await, Err(BucketError::Unavailable(_))));
    assert!(matches!(bucket.list().await, Err(BucketError::Unavailable(_))));
    let created = bucket.create(&name, Bytes::new(), "text/plain").await;
    assert!(matches!(created, Err(BucketError::Unavailable(_))), "{created:?}");
}

#[tokio::test]
async fn name_of_a_folder_or_below_an_object_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let bucket = DiskBucket::open(folder.path()).await.unwrap();
    let data = Bytes::from_static(b"x");
    bucket.create(&object_name("a/b"), data.clone(), "text/plain").await.unwrap();
    for refused in ["a/b/c", "a/b/c/d", "a"] {
        let created = bucket.create(&object_name(refused), data.clone(), "text/plain").await;
        assert!(matches!(created, Err(BucketError::BadName { .. })), "{refused}: {created:?}");
        assert!(!bucket.exists(&object_name(refused)).await.unwrap(), "{refused}");
        let read = bucket.read(&object_name(refused), 9).await;
        assert!(matches!(read, Err(BucketError::NotFound(_))), "{refused}: {read:?}");
    }
    assert_eq!(temp_file_count(folder.path()), 0);
}

#[tokio::test]
async fn name_with_a_part_too_long_for_the_file_system_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let bucket = DiskBucket::open(folder.path()).await.unwrap();
    let part = "x".repeat(256);
    for too_long in [part.clone(), format!("a/{part}"), format!("{part}/a")] {
        let created = bucket.create(&object_name(&too_long), Bytes::new(), "text/plain").await;
        assert!(matches!(created, Err(BucketError::BadName { .. })), "{created:?}");
        assert!(!bucket.exists(&object_name(&too_long)).await.unwrap());
        let read = bucket.read(&object_name(&too_long), 9).await;
        assert!(matches!(read, Err(BucketError::NotFound(_))), "{read:?}");
    }
}

#[tokio::test]
async fn bucket_without_its_folder_is_not_healthy() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("bucket");
    let bucket = DiskBucket::open(&root).await.unwrap();
    bucket.check_health().await.unwrap();
    assert_eq!(temp_file_count(&root), 0);
    fs::rename(&root, folder.path().join("away")).unwrap();
    assert!(matches!(bucket.check_health().await, Err(BucketError::Unavailable(_))));
}

#[tokio::test]
async fn opening_a_root_that_is_a_file_fails() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("file");
    fs::write(&root, "").unwrap();
    let opened = DiskBucket::open(&root).await;
    assert!(matches!(opened, Err(BucketError::Unavailable(_))), "{opened:?}");
}
