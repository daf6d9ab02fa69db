//! Reads an ONNX file and the data files that hold its weights.
//!
//! An exporter may write the weights to a file beside the ONNX file, such as `model.onnx.data`. The ONNX file
//! then states the name of the data file, and the offset and the length of each constant.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use onnx_proto::{AttributeProto, GraphProto, Message, ModelProto, TensorProto};
use sha2::{Digest, Sha256};

use super::proto;
use crate::Error;

/// Maximum size of an ONNX file and of all weights: protobuf has no larger messages.
const MAX_BYTE_COUNT: u64 = i32::MAX as u64;

/// The size and the checksum of an ONNX file and its data files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checksum {
    /// Total size of all files in bytes.
    pub size: u64,
    /// SHA-256 of the ONNX file, followed by its data files in the order of their names, in hexadecimal.
    pub sha256: String,
    /// Paths of the data files, in the order of their names.
    pub data_paths: Vec<PathBuf>,
}

/// Computes the checksum of an ONNX file and its data files.
///
/// A file that is not an ONNX model, or that is larger than the maximum size, has no data files.
///
/// # Errors
/// Returns an I/O error if the ONNX file cannot be read, and one with a message that names the data file if a
/// data file is missing or its name is not allowed.
pub fn checksum(onnx_path: &Path) -> io::Result<Checksum> {
    let mut hasher = Sha256::new();
    let mut size = hash_file(onnx_path, &mut hasher)?;
    let data_paths = find_data_files(onnx_path)?;
    for path in &data_paths {
        size += hash_file(path, &mut hasher)?;
    }
    Ok(Checksum { size, sha256: hex::encode(hasher.finalize()), data_paths })
}

/// Returns the paths of the data files of an ONNX file, in the order of their names.
///
/// A file that is not an ONNX model, or that is larger than the maximum size, has none.
fn find_data_files(onnx_path: &Path) -> io::Result<Vec<PathBuf>> {
    if fs::metadata(onnx_path)?.len() > MAX_BYTE_COUNT {
        return Ok(Vec::new());
    }
    let model = ModelProto::parse_from_tokio_bytes(&fs::read(onnx_path)?.into());
    let names = model.map(|mut model| data_file_names(&mut model)).unwrap_or_default();
    let paths = names.iter().map(|name| find_data_file(onnx_path, name));
    paths.collect::<Result<_, _>>().map_err(io::Error::other)
}

/// Adds the bytes of a file to a hash, and returns their number.
fn hash_file(path: &Path, hasher: &mut Sha256) -> io::Result<u64> {
    let mut reader = BufReader::with_capacity(1 << 20, File::open(path)?);
    let mut size = 0;
    loop {
        let bytes = reader.fill_buf()?;
        if bytes.is_empty() {
            return Ok(size);
        }
        hasher.update(bytes);
        let count = bytes.len();
        size += count as u64;
        reader.consume(count);
    }
}

/// Reads an ONNX file, and the constants that are stored in data files.
///
/// The constants refer to the bytes of the files, which are in memory once.
///
/// # Errors
/// Returns [`Error::Io`] if the ONNX file cannot be read, and [`Error::UnsupportedGraph`] if the file is not an
/// ONNX model, or a data file is missing or too short.
pub fn read_model(onnx_path: &Path) -> Result<ModelProto, Error> {
    let metadata = fs::metadata(onnx_path).map_err(Error::io("read", onnx_path))?;
    let unsupported = |reason| Error::UnsupportedGraph { onnx_path: onnx_path.into(), reason };
    if metadata.len() > MAX_BYTE_COUNT {
        return Err(unsupported(too_large("the file", metadata.len())));
    }
    let bytes = fs::read(onnx_path).map_err(Error::io("read", onnx_path))?;
    let mut model = ModelProto::parse_from_tokio_bytes(&bytes.into()).map_err(|error| {
        unsupported(format!(
            "the file is not an ONNX model ({error}); check that it is complete and not an HTML page"
        ))
    })?;
    load_data_files(&mut model, onnx_path, metadata.len()).map_err(unsupported)?;
    Ok(model)
}

fn too_large(what: &str, size: u64) -> String {
    format!("{what} has {size} bytes, but at most {MAX_BYTE_COUNT} are supported; use a smaller network")
}

/// Reads the constants that are stored in data files. `onnx_size` is the size of the ONNX file in bytes.
fn load_data_files(model: &mut ModelProto, onnx_path: &Path, onnx_size: u64) -> Result<(), String> {
    let names = data_file_names(model);
    let mut total = onnx_size;
    let mut constants_len = 0;
    for name in &names {
        let path = find_data_file(onnx_path, name)?;
        let size =
            fs::metadata(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?.len();
        total += size;
        if total > MAX_BYTE_COUNT {
            return Err(too_large(&format!("the ONNX file with the data file {}", path.display()), total));
        }
        let bytes = fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        // The type of `raw_data` shares the bytes between all constants of the file.
        let mut whole = TensorProto { raw_data: bytes.into(), ..Default::default() };
        let whole = std::mem::take(&mut whole.raw_data);
        let mut outcome = Ok(());
        for_each_tensor(model, &mut |tensor| {
            if outcome.is_ok() && entry(tensor, "location").as_ref() == Some(name) {
                outcome = read_range(tensor, whole.len()).and_then(|(start, end)| {
                    // Several constants may refer to the same bytes, and a pass copies each of them.
                    constants_len += (end - start) as u64;
                    if constants_len > MAX_BYTE_COUNT {
                        return Err(too_large("the sum of all constants", constants_len));
                    }
                    tensor.raw_data = whole.slice(start..end);
                    tensor.external_data.clear();
                    tensor.data_location = Default::default();
                    Ok(())
                });
            }
        });
        outcome.map_err(|reason| {
            format!(
                "{reason} in the data file {}; copy both files again, or export the model again",
                path.display()
            )
        })?;
    }
    Ok(())
}

/// Returns the start and the end of a constant in its data file, which has `file_len` bytes.
fn read_range(tensor: &TensorProto, file_len: usize) -> Result<(usize, usize), String> {
    let number = |key: &str| match entry(tensor, key) {
        None => Ok(None),
        Some(text) => text.parse::<usize>().map(Some).map_err(|_| {
            format!("the {key} of the constant {:?} is {text:?}, expected a number of bytes", tensor.name)
        }),
    };
    let expected = proto::byte_len(tensor).ok_or_else(|| {
        format!(
            "the constant {:?} has element type {} (of ONNX's TensorProto.DataType) and the shape {:?}, which \
             are not supported",
            tensor.name, tensor.data_type, tensor.dims
        )
    })?;
    let start = number("offset")?.unwrap_or(0);
    if let Some(len) = number("length")?
        && len != expected
    {
        return Err(format!(
            "the constant {:?} has {len} bytes, expected {expected} for the shape {:?},",
            tensor.name, tensor.dims
        ));
    }
    start.checked_add(expected).filter(|end| *end <= file_len).map(|end| (start, end)).ok_or_else(|| {
        format!(
            "the constant {:?} has {expected} bytes from byte {start} on, but there are only {file_len} bytes",
            tensor.name
        )
    })
}

/// Returns the path of a data file, which must be a regular file in the folder of the ONNX file.
fn find_data_file(onnx_path: &Path, name: &str) -> Result<PathBuf, String> {
    if !crate::spec::is_plain_file_name(name) {
        return Err(format!(
            "the weights are in the data file {name:?}, expected the name of a file in the same folder; save the \
             model with `onnx.save(model, path, save_as_external_data=True, location=\"model.onnx.data\")`"
        ));
    }
    let path = onnx_path.with_file_name(name);
    match fs::symlink_metadata(&path) {
        Ok(metadata) if metadata.is_file() => Ok(path),
        Ok(_) => Err(format!(
            "the data file {} holds the weights, but it is not a regular file; replace it by a copy of the file",
            path.display()
        )),
        Err(error) => Err(format!(
            "the weights are in the data file {}, which cannot be read: {error}; the exporter wrote two files: \
             copy the data file to the same folder",
            path.display()
        )),
    }
}

/// Returns the names of all data files.
fn data_file_names(model: &mut ModelProto) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for_each_tensor(model, &mut |tensor| names.extend(entry(tensor, "location")));
    names
}

fn entry(tensor: &TensorProto, key: &str) -> Option<String> {
    tensor.external_data.iter().find(|entry| entry.key == key).map(|entry| entry.value.clone())
}

/// Calls a function with each constant of a model.
fn for_each_tensor(model: &mut ModelProto, visit: &mut dyn FnMut(&mut TensorProto)) {
    if let Some(graph) = model.graph.as_mut() {
        for_each_tensor_of_graph(graph, visit);
    }
}

fn for_each_tensor_of_graph(graph: &mut GraphProto, visit: &mut dyn FnMut(&mut TensorProto)) {
    graph.initializer.iter_mut().for_each(&mut *visit);
    for attribute in graph.node.iter_mut().flat_map(|node| &mut node.attribute) {
        let AttributeProto { t, tensors, .. } = attribute;
        t.as_mut().into_iter().chain(tensors).for_each(&mut *visit);
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::testing::build_graph;
    use super::*;

    /// Writes a model whose constant `w` is four float32 numbers in a data file. Returns the path of the model.
    fn write_model(folder: &TempDir, entries: &[(&str, &str)]) -> PathBuf {
        let mut tensor = proto::float_tensor("w", &[4], &[]);
        for (key, value) in entries {
            // onnx-proto does not export the type of an entry, so the entry is created as a default.
            tensor.external_data.push(Default::default());
            let entry = tensor.external_data.last_mut().unwrap();
            entry.key = (*key).into();
            entry.value = (*value).into();
        }
        let graph = build_graph(&[None], vec![tensor], vec![]);
        let model = ModelProto { graph: Some(graph).into(), ..Default::default() };
        let path = folder.path().join("model.onnx");
        fs::write(&path, model.write_to_bytes().unwrap()).unwrap();
        path
    }

    fn write_data(folder: &TempDir) {
        let numbers: Vec<u8> = [9.0_f32, 1.0, 2.0, 3.0, 4.0].iter().flat_map(|n| n.to_le_bytes()).collect();
        fs::write(folder.path().join("model.onnx.data"), numbers).unwrap();
    }

    const ENTRIES: [(&str, &str); 3] = [("location", "model.onnx.data"), ("offset", "4"), ("length", "16")];

    #[test]
    fn constants_are_read_from_the_data_file() {
        let folder = TempDir::new().unwrap();
        let path = write_model(&folder, &ENTRIES);
        write_data(&folder);
        let model = read_model(&path).unwrap();
        let tensor = &model.graph.initializer[0];
        assert_eq!(proto::floats(tensor), Some(vec![1.0, 2.0, 3.0, 4.0]));
        assert!(tensor.external_data.is_empty());
    }

    #[test]
    fn files_that_are_too_large_together_are_not_read() {
        let folder = TempDir::new().unwrap();
        let path = write_model(&folder, &ENTRIES);
        // A file without blocks: its bytes exist only in its size.
        let data = File::create(folder.path().join("model.onnx.data")).unwrap();
        data.set_len(MAX_BYTE_COUNT - fs::metadata(&path).unwrap().len() + 1).unwrap();
        let error = read_model(&path).unwrap_err().to_string();
        assert!(error.contains(&format!("has {} bytes", MAX_BYTE_COUNT + 1)), "{error}");
        let large = folder.path().join("large.onnx");
        fs::copy(&path, &large).unwrap();
        File::options().write(true).open(&large).unwrap().set_len(MAX_BYTE_COUNT + 1).unwrap();
        assert!(find_data_files(&large).unwrap().is_empty());
        assert!(read_model(&large).unwrap_err().to_string().contains("the file has"));
    }

    #[test]
    fn constants_that_share_the_bytes_of_a_file_are_counted_each() {
        let folder = TempDir::new().unwrap();
        let path = write_model(&folder, &[("location", "model.onnx.data")]);
        let mut model = ModelProto::parse_from_tokio_bytes(&fs::read(&path).unwrap().into()).unwrap();
        let graph = model.graph.as_mut().unwrap();
        graph.initializer[0].dims = vec![1 << 20];
        let tensor = graph.initializer[0].clone();
        graph.initializer.resize(600, tensor);
        fs::write(&path, model.write_to_bytes().unwrap()).unwrap();
        File::create(folder.path().join("model.onnx.data")).unwrap().set_len(4 << 20).unwrap();
        let error = read_model(&path).unwrap_err().to_string();
        assert!(error.contains("the sum of all constants"), "{error}");
    }

    #[test]
    fn checksum_covers_both_files() {
        let folder = TempDir::new().unwrap();
        let path = write_model(&folder, &ENTRIES);
        write_data(&folder);
        let both =
            [fs::read(&path).unwrap(), fs::read(folder.path().join("model.onnx.data")).unwrap()].concat();
        let Checksum { size, sha256, data_paths } = checksum(&path).unwrap();
        assert_eq!((size, sha256), (both.len() as u64, hex::encode(Sha256::digest(&both))));
        assert_eq!(data_paths, [folder.path().join("model.onnx.data")]);
    }

    #[test]
    fn missing_short_and_forbidden_data_files_are_named() {
        let folder = TempDir::new().unwrap();
        let error_with =
            |entries: &[(&str, &str)]| read_model(&write_model(&folder, entries)).unwrap_err().to_string();
        let error = error_with(&ENTRIES);
        assert!(error.contains("model.onnx.data, which cannot be read"), "{error}");
        assert!(
            checksum(&folder.path().join("model.onnx")).unwrap_err().to_string().contains("model.onnx.data")
        );

        write_data(&folder);
        let error = error_with(&[("location", "model.onnx.data"), ("offset", "8")]);
        assert!(error.contains("\"w\" has 16 bytes from byte 8 on, but there are only 20"), "{error}");
        let error = error_with(&[("location", "model.onnx.data"), ("length", "12")]);
        assert!(error.contains("12 bytes, expected 16"), "{error}");
        let error = error_with(&[("location", "model.onnx.data"), ("offset", "-4")]);
        assert!(error.contains("offset") && error.contains("-4"), "{error}");
        for location in ["../model.onnx.data", "/etc/passwd", "..", ""] {
            let error = error_with(&[("location", location)]);
            assert!(error.contains(&format!("{location:?}")), "{error}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn data_file_that_is_a_symbolic_link_is_refused() {
        let folder = TempDir::new().unwrap();
        let path = write_model(&folder, &ENTRIES);
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("model.onnx.data")).unwrap();
        let error = read_model(&path).unwrap_err().to_string();
        assert!(error.contains("not a regular file"), "{error}");
    }
}
