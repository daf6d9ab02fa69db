//! The tests that every implementation of a bucket must pass (feature `testing`).

use bytes::Bytes;

use super::{Bucket, BucketError, BucketListing, Created, LooksIntact, ObjectListing, ObjectName};

/// Checks that `bucket` behaves as the documentation of [`Bucket`] says. The bucket must be empty.
///
/// # Panics
/// Panics at the first difference from the documentation.
pub async fn check(bucket: &dyn Bucket) {
    assert!(!bucket.name().is_empty() && !bucket.name().contains('/'), "{:?}", bucket.name());
    second_write_changes_nothing(bucket).await;
    missing_object_is_not_found(bucket).await;
    object_larger_than_the_limit_is_refused(bucket).await;
    content_is_read_back_unchanged(bucket).await;
    similar_names_are_different_objects(bucket).await;
    exactly_one_concurrent_writer_wins(bucket).await;
    intact_object_is_never_replaced(bucket).await;
}

/// Checks that `bucket` detects damaged objects and replaces them as the documentation of
/// [`Bucket::replace_if_broken`] says. The bucket must be empty.
///
/// `damage` changes the content of an object. `store_without_checksum` writes an object as a program that stores
/// no checksums does.
///
/// # Panics
/// Panics at the first difference from the documentation.
pub async fn check_damage(
    bucket: &dyn Bucket,
    damage: &(dyn Fn(&ObjectName, Bytes) + Sync),
    store_without_checksum: &(dyn Fn(&ObjectName, Bytes) + Sync),
) {
    assert!(bucket.replaces_broken_objects());
    let content = vec![7; 100_000];
    let (cut, zeroed) = (&content[..99_999], vec![0; content.len()]);
    let mut flipped = content.clone();
    flipped[50_000] ^= 1;
    let longer = [&content[..], b"more"].concat();
    let kinds_of_damage = [("empty", &[][..]), ("cut", cut), ("zeroed", &zeroed), ("flipped", &flipped)];
    for (kind, damaged) in kinds_of_damage.into_iter().chain([("longer", &longer[..])]) {
        let name = format!("damage/{kind}");
        assert_eq!(create(bucket, &name, &content).await, Created::New);
        damage(&object_name(&name), Bytes::copy_from_slice(damaged));
        let result = bucket.read(&object_name(&name), usize::MAX).await;
        assert!(matches!(result, Err(BucketError::Damaged(_))), "{kind}: {result:?}");
        assert!(exists(bucket, &name).await, "{kind}: damage does not remove an object");
        assert_eq!(create(bucket, &name, b"new").await, Created::AlreadyThere, "{kind}");
        assert_eq!(replace_if_broken(bucket, &name, b"new", |_| true).await, Created::Replaced, "{kind}");
        assert_eq!(read(bucket, &name).await, "new", "{kind}");
        assert_eq!(replace_if_broken(bucket, &name, b"newer", |_| false).await, Created::AlreadyThere);
        assert_eq!(read(bucket, &name).await, "new", "{kind}");
    }
    let name = "unchecked/object";
    store_without_checksum(&object_name(name), Bytes::from_static(b"old"));
    assert_eq!(read(bucket, name).await, "old", "an object without a checksum is read as it is");
    assert_eq!(replace_if_broken(bucket, name, b"new", |data| data == b"old").await, Created::AlreadyThere);
    assert_eq!(read(bucket, name).await, "old");
    assert_eq!(replace_if_broken(bucket, name, b"new", |data| data != b"old").await, Created::Replaced);
    assert_eq!(read(bucket, name).await, "new");
    exactly_one_concurrent_writer_replaces_a_damaged_object(bucket, damage).await;
}

async fn exactly_one_concurrent_writer_replaces_a_damaged_object(
    bucket: &dyn Bucket,
    damage: &(dyn Fn(&ObjectName, Bytes) + Sync),
) {
    for round in 0..8 {
        let name = format!("damage-race/{round}");
        assert_eq!(create(bucket, &name, b"content").await, Created::New);
        damage(&object_name(&name), Bytes::new());
        let contents: [Vec<u8>; 3] = [b'a', b'b', b'c'].map(|letter| vec![letter; 50_000]);
        let [a, b, c] = &contents;
        let results = tokio::join!(
            replace_if_broken(bucket, &name, a, |_| true),
            replace_if_broken(bucket, &name, b, |_| true),
            replace_if_broken(bucket, &name, c, |_| true),
        );
        let results = [results.0, results.1, results.2];
        let winners: Vec<usize> = (0..3).filter(|&writer| results[writer] == Created::Replaced).collect();
        assert_eq!(winners.len(), 1, "{results:?}");
        assert!(read(bucket, &name).await == contents[winners[0]], "the content is not that of the winner");
    }
}

/// Checks that `bucket` lists its objects as the documentation of [`BucketListing`] says. The bucket must be
/// empty.
///
/// # Panics
/// Panics at the first difference from the documentation.
pub async fn check_listing(bucket: &dyn BucketListing) {
    assert_eq!(list(bucket, 10).await, [""; 0]);
    let mut names = [
        ".hidden",
        " a",
        "Z",
        "a-b/image.jpg",
        "a.b",
        "a/b.c",
        "a/b/c",
        "a/b/d/e/f",
        "a/b0",
        "a/c",
        "a0",
        "ab/image.jpg",
        "ab/prediction.json",
        "b",
        "日本/画像.jpg",
    ];
    names.sort_unstable();
    for name in names {
        assert_eq!(create(bucket, name, b"x").await, Created::New, "{name:?}");
    }
    for limit in [1, 2, 3, 7, names.len(), usize::MAX] {
        assert_eq!(list(bucket, limit).await, names, "limit {limit}");
    }
    // Two listings at the same time do not affect each other.
    let (mut first, mut second) = (start_listing(bucket).await, start_listing(bucket).await);
    let mut listed = [Vec::new(), Vec::new()];
    for _ in 0..names.len() {
        listed[0].extend(next_page(&mut *first, 1).await);
        listed[1].extend(next_page(&mut *second, 1).await);
    }
    for mut listed in listed {
        listed.sort_unstable();
        assert_eq!(listed, names);
    }
}

/// Lists the whole bucket with pages of at most `limit` objects. Returns the names in ascending byte order.
async fn list(bucket: &dyn BucketListing, limit: usize) -> Vec<String> {
    let mut listing = start_listing(bucket).await;
    let mut names = Vec::new();
    loop {
        let page = next_page(&mut *listing, limit).await;
        assert!(page.len() <= limit, "a page has {} names, and the limit is {limit}", page.len());
        if page.is_empty() {
            assert_eq!(next_page(&mut *listing, limit).await, [""; 0], "the end of a listing stays its end");
            names.sort_unstable();
            return names;
        }
        names.extend(page);
    }
}

async fn start_listing(bucket: &dyn BucketListing) -> Box<dyn ObjectListing> {
    match bucket.list().await {
        Ok(listing) => listing,
        Err(error) => unreachable!("starting a listing failed: {error}"),
    }
}

async fn next_page(listing: &mut dyn ObjectListing, limit: usize) -> Vec<String> {
    match listing.next_page(limit).await {
        Ok(names) => names.iter().map(ObjectName::to_string).collect(),
        Err(error) => unreachable!("a listing failed: {error}"),
    }
}

async fn second_write_changes_nothing(bucket: &dyn Bucket) {
    assert!(!exists(bucket, "once/image.jpg").await);
    assert_eq!(create(bucket, "once/image.jpg", b"first").await, Created::New);
    assert!(exists(bucket, "once/image.jpg").await);
    assert_eq!(create(bucket, "once/image.jpg", b"second").await, Created::AlreadyThere);
    assert_eq!(create(bucket, "once/image.jpg", b"first").await, Created::AlreadyThere);
    assert_eq!(read(bucket, "once/image.jpg").await, "first");
}

async fn missing_object_is_not_found(bucket: &dyn Bucket) {
    for missing in ["missing", "missing/image.jpg", "once/image.jpg2", "once/image"] {
        let result = bucket.read(&object_name(missing), 100).await;
        assert!(matches!(result, Err(BucketError::NotFound(_))), "{missing}: {result:?}");
        assert!(!exists(bucket, missing).await, "{missing}");
    }
}

async fn object_larger_than_the_limit_is_refused(bucket: &dyn Bucket) {
    let name = object_name("limit");
    assert_eq!(create(bucket, "limit", b"12345").await, Created::New);
    for limit in [0, 4] {
        let result = bucket.read(&name, limit).await;
        let too_large =
            matches!(&result, Err(BucketError::TooLarge { limit: reported, .. }) if *reported == limit);
        assert!(too_large, "limit {limit}: {result:?}");
    }
    for limit in [5, 6, usize::MAX] {
        let result =
            bucket.read(&name, limit).await.map_err(|error| error.to_string()).map(|object| object.data);
        assert_eq!(result, Ok(Bytes::from_static(b"12345")), "limit {limit}");
    }
}

async fn content_is_read_back_unchanged(bucket: &dyn Bucket) {
    let every_byte: Vec<u8> = (0..=255).cycle().take(1_000_000).collect();
    for (name, data) in [("empty", &[][..]), ("binary", &every_byte), ("newlines", b"\r\n\0\n")] {
        assert_eq!(create(bucket, name, data).await, Created::New, "{name}");
        assert!(read(bucket, name).await == data, "the content of {name} has changed");
    }
    let empty = bucket
        .read(&object_name("empty"), 0)
        .await
        .map_err(|error| error.to_string())
        .map(|object| object.data);
    assert_eq!(empty, Ok(Bytes::new()), "an empty object can be read with the limit 0");
}

async fn similar_names_are_different_objects(bucket: &dyn Bucket) {
    let names = [
        "name",
        "name.",
        "name ",
        " name",
        "näme",
        "日本/画像.jpg",
        "a b/c d",
        "a%20b",
        "a+b",
        "q?x=1#y",
        "...",
        ".hidden",
        "deep/er/and/deep/er",
        "-rf",
        "'\"$HOME`*",
    ];
    for name in names {
        assert_eq!(create(bucket, name, name.as_bytes()).await, Created::New, "{name:?}");
    }
    for name in names {
        assert_eq!(read(bucket, name).await, name, "{name:?}");
    }
}

async fn exactly_one_concurrent_writer_wins(bucket: &dyn Bucket) {
    for round in 0..8 {
        let name = format!("race/{round}");
        let contents: [Vec<u8>; 4] = [b'a', b'b', b'c', b'd'].map(|letter| vec![letter; 50_000]);
        let [a, b, c, d] = &contents;
        let results = tokio::join!(
            create(bucket, &name, a),
            create(bucket, &name, b),
            create(bucket, &name, c),
            create(bucket, &name, d),
        );
        let results = [results.0, results.1, results.2, results.3];
        let written: Vec<&Vec<u8>> = results
            .iter()
            .zip(&contents)
            .filter(|(result, _)| **result == Created::New)
            .map(|(_, content)| content)
            .collect();
        assert_eq!(written.len(), 1, "{results:?}");
        assert!(read(bucket, &name).await == *written[0], "the content is not that of the writer that won");
    }
}

async fn intact_object_is_never_replaced(bucket: &dyn Bucket) {
    for (name, content) in [("intact/object", &b"first"[..]), ("intact/empty", b"")] {
        assert_eq!(replace_if_broken(bucket, name, content, |_| false).await, Created::New);
        assert_eq!(replace_if_broken(bucket, name, b"second", |_| false).await, Created::AlreadyThere);
        assert_eq!(read(bucket, name).await, content);
    }
}

async fn replace_if_broken(
    bucket: &dyn Bucket,
    name: &str,
    data: &[u8],
    looks_intact: LooksIntact,
) -> Created {
    let data = Bytes::copy_from_slice(data);
    let content_type = "application/octet-stream";
    match bucket.replace_if_broken(&object_name(name), data, content_type, looks_intact).await {
        Ok(created) => created,
        Err(error) => unreachable!("replacing {name:?} failed: {error}"),
    }
}

async fn create(bucket: &dyn Bucket, name: &str, data: &[u8]) -> Created {
    let data = Bytes::copy_from_slice(data);
    match bucket.create(&object_name(name), data, "application/octet-stream").await {
        Ok(created) => created,
        Err(error) => unreachable!("creating {name:?} failed: {error}"),
    }
}

async fn read(bucket: &dyn Bucket, name: &str) -> Bytes {
    match bucket.read(&object_name(name), 10_000_000).await {
        Ok(object) => object.data,
        Err(error) => unreachable!("reading {name:?} failed: {error}"),
    }
}

async fn exists(bucket: &dyn Bucket, name: &str) -> bool {
    match bucket.exists(&object_name(name)).await {
        Ok(exists) => exists,
        Err(error) => unreachable!("checking for {name:?} failed: {error}"),
    }
}

fn object_name(name: &str) -> ObjectName {
    match ObjectName::new(name) {
        Ok(object) => object,
        Err(error) => unreachable!("{error}"),
    }
}
