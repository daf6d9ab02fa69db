//! Adds the names of the file's nodes to messages of the code generator.
//!
//! The code generator numbers the nodes per operator, and calls them `reshape1`, `conv2d3` and so on. The nodes of
//! the simplified graph still have the names of the file.

use onnx_proto::GraphProto;

/// Adds the file's own name after each name that the code generator gave to a node.
///
/// `graph` is the graph that the code generator read.
#[must_use]
pub fn explain_node_names(message: &str, graph: &GraphProto) -> String {
    let is_word = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let mut text = String::new();
    let mut rest = message;
    while let Some(start) = rest.find(is_word) {
        let word_len = rest[start..].find(|character| !is_word(character)).unwrap_or(rest.len() - start);
        let end = start + word_len;
        text.push_str(&rest[..end]);
        if let Some(name) = find_name(&rest[start..end], graph) {
            text.push_str(&format!(" (the node {name:?} of the file)"));
        }
        rest = &rest[end..];
    }
    text + rest
}

/// Returns the file's name of the node that the code generator calls `word`, such as `reshape1`.
fn find_name<'a>(word: &str, graph: &'a GraphProto) -> Option<&'a str> {
    // An output is called `reshape1_out1`.
    let word = word.split_once("_out").map_or(word, |(node, _)| node);
    let operator = word.trim_end_matches(|character: char| character.is_ascii_digit());
    let number: usize = word[operator.len()..].parse().ok()?;
    let operator = ["1d", "2d", "3d"].iter().find_map(|rank| operator.strip_suffix(rank)).unwrap_or(operator);
    let mut nodes = graph.node.iter().filter(|node| node.op_type.eq_ignore_ascii_case(operator));
    let node = nodes.nth(number.checked_sub(1)?)?;
    [&node.name, node.output.first()?].into_iter().find(|name| !name.is_empty()).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::super::proto::node;
    use super::super::testing::build_graph;
    use super::*;

    #[test]
    fn names_of_the_code_generator_are_explained() {
        let mut nodes = vec![
            node("Reshape", &["x"], &["a"]),
            node("Conv", &["a"], &["b"]),
            node("Reshape", &["b"], &["y"]),
        ];
        nodes[2].name = "/head/Reshape".into();
        let graph = build_graph(&[None], vec![], nodes);
        assert_eq!(
            explain_node_names("node 'reshape2' of conv2d1_out1: bad rank 4", &graph),
            "node 'reshape2 (the node \"/head/Reshape\" of the file)' of conv2d1_out1 (the node \"b\" of the \
             file): bad rank 4"
        );
    }
}
