use super::super::proto::{float_tensor, node};
use super::super::testing::{build_graph, constant_values, operators};
use super::super::tidy;
use super::*;

const IMAGE: [Option<i64>; 4] = [Some(1), Some(8), Some(7), Some(7)];

fn make_graph_dynamic(
    dims: &[Option<i64>],
    constants: Vec<TensorProto>,
    nodes: Vec<NodeProto>,
) -> GraphProto {
    let mut graph = build_graph(dims, constants, nodes);
    make_dynamic(&mut graph, "x");
    tidy::remove_identities(&mut graph);
    tidy::remove_unused(&mut graph);
    graph
}

fn integers(graph: &GraphProto, name: &str) -> Vec<i64> {
    proto::integers(proto::initializer(graph, name).unwrap()).unwrap()
}

fn ints(name: &str, data: &[i64]) -> TensorProto {
    int_tensor(name, &[i64::try_from(data.len()).unwrap()], data)
}

#[test]
fn reshape_of_one_image_to_several_dimensions_works_for_any_batch() {
    for target in [[1, 2, 4, 7, 7], [-1, 2, 4, 7, 7], [0, 2, -1, 7, 7]] {
        let reshape = node("Reshape", &["x", "shape"], &["y"]);
        let graph = make_graph_dynamic(&IMAGE, vec![ints("shape", &target)], vec![reshape]);
        assert_eq!(operators(&graph), ["Reshape"]);
        assert_eq!(integers(&graph, &graph.node[0].input[1]), [-1, 2, 4, 7, 7]);
        assert_eq!(find_obstacle(&graph, "x"), None);
    }
}

#[test]
fn gather_of_all_elements_in_order_becomes_a_reshape() {
    let image = [Some(1), Some(4), Some(1), Some(1)];
    let nodes = |indices| {
        let gather = node("Gather", &["row", indices], &["view"]).with_int("axis", 0);
        vec![
            node("Reshape", &["x", "one_row"], &["row"]),
            gather,
            node("Reshape", &["view", "features"], &["y"]),
        ]
    };
    let constants = vec![
        ints("one_row", &[-1]),
        int_tensor("in_order", &[1, 4, 1, 1], &[0, 1, 2, 3]),
        int_tensor("reversed", &[1, 4, 1, 1], &[3, 2, 1, 0]),
        ints("features", &[1, 4]),
    ];
    let graph = make_graph_dynamic(&image, constants.clone(), nodes("in_order"));
    assert_eq!(operators(&graph), ["Reshape", "Reshape", "Reshape"]);
    assert_eq!(integers(&graph, &graph.node[1].input[1]), [-1, 4, 1, 1]);
    assert_eq!(find_obstacle(&graph, "x"), None);
    let graph = make_graph_dynamic(&image, constants, nodes("reversed"));
    assert!(find_obstacle(&graph, "x").unwrap().contains("Gather"));
}

#[test]
fn computed_shapes_become_constants() {
    // [batch, 8, 7, 7] is reshaped to [batch, 8, 7 * 7], as exporters of attention write it.
    let constants = vec![int_tensor("zero", &[], &[0]), int_tensor("two", &[], &[2]), ints("axis", &[0])];
    let nodes = vec![
        node("Shape", &["x"], &["s"]),
        node("Gather", &["s", "zero"], &["n"]),
        node("Gather", &["s", "two"], &["h"]),
        node("Mul", &["h", "h"], &["hw"]),
        node("Unsqueeze", &["n", "axis"], &["n1"]),
        node("Unsqueeze", &["hw", "axis"], &["hw1"]),
        node("Slice", &["s", "one", "two1"], &["c"]),
        node("Concat", &["n1", "c", "hw1"], &["shape"]).with_int("axis", 0),
        node("Reshape", &["x", "shape"], &["y"]),
    ];
    let constants = [constants, vec![ints("one", &[1]), ints("two1", &[2])]].concat();
    let graph = make_graph_dynamic(&IMAGE, constants, nodes);
    assert_eq!(operators(&graph), ["Reshape"]);
    assert_eq!(integers(&graph, &graph.node[0].input[1]), [-1, 8, 49]);
}

#[test]
fn constant_scale_of_attention_is_evaluated() {
    let nodes = vec![
        node("Shape", &["x"], &["s"]),
        node("Slice", &["s", "last", "end"], &["d"]),
        node("Cast", &["d"], &["df"]).with_int("to", 1),
        node("Sqrt", &["df"], &["root"]),
        node("Div", &["one", "root"], &["scale"]),
        node("Mul", &["x", "scale"], &["y"]),
    ];
    let constants = vec![ints("last", &[-1]), ints("end", &[i64::MAX]), float_tensor("one", &[1], &[1.0])];
    let graph = make_graph_dynamic(&[None, Some(3), Some(2), Some(4)], constants, nodes);
    assert_eq!(operators(&graph), ["Mul"]);
    assert_eq!(constant_values(&graph, "scale"), [0.5]);
}

#[test]
fn class_token_is_repeated_for_each_image() {
    let token = float_tensor("token", &[1, 1, 49], &[0.5; 49]);
    let rows = || node("Reshape", &["x", "rows"], &["r"]);
    let shape = ints("rows", &[1, 8, 49]);
    let concat = |token| node("Concat", &[token, "r"], &["y"]).with_int("axis", 1);
    // The token is expanded to the batch size of the export, or to a computed batch size.
    let static_graph = make_graph_dynamic(
        &IMAGE,
        vec![token.clone(), shape.clone(), ints("one", &[1, -1, -1])],
        vec![rows(), concat("token")],
    );
    let nodes = vec![
        rows(),
        node("Shape", &["x"], &["s"]),
        node("Gather", &["s", "zero"], &["n"]),
        node("Concat", &["n", "minus", "minus"], &["target"]).with_int("axis", 0),
        node("Equal", &["target", "minus"], &["is_open"]),
        node("Where", &["is_open", "ones", "target"], &["sizes"]),
        node("Expand", &["token", "sizes"], &["tokens"]),
        concat("tokens"),
    ];
    let constants = vec![token, shape, ints("zero", &[0]), ints("minus", &[-1]), ints("ones", &[1, 1, 1])];
    let computed_graph = make_graph_dynamic(&IMAGE, constants, nodes);
    for graph in [static_graph, computed_graph] {
        let mut found = operators(&graph);
        found.sort_unstable();
        assert_eq!(found, ["Concat", "Concat", "Expand", "Gather", "Reshape", "Shape"]);
        assert_eq!(find_obstacle(&graph, "x"), None);
    }
}

#[test]
fn node_that_joins_the_images_of_a_batch_is_named() {
    let mean = NodeProto {
        name: "/head/mean".into(),
        ..node("ReduceMean", &["x"], &["y"]).with_ints("axes", &[0]).with_int("keepdims", 0)
    };
    let graph = make_graph_dynamic(&IMAGE, vec![], vec![mean]);
    let reason = find_obstacle(&graph, "x").unwrap();
    assert!(reason.contains("ReduceMean \"/head/mean\"") && reason.contains("[8, 7, 7]"), "{reason}");
    let graph = make_graph_dynamic(&IMAGE, vec![], vec![node("Mystery", &["x"], &["y"])]);
    assert!(find_obstacle(&graph, "x").unwrap().contains("Mystery \"y\""));
}

#[test]
fn normalisation_over_the_images_is_found() {
    let softmax = |axis| node("Softmax", &["x"], &["y"]).with_int("axis", axis);
    let obstacle =
        |nodes| find_obstacle(&make_graph_dynamic(&[None, Some(4)], vec![ints("zero", &[0])], nodes), "x");
    assert_eq!(obstacle(vec![softmax(1)]), None);
    assert!(obstacle(vec![softmax(0)]).unwrap().contains("Softmax \"y\" normalises"));
    assert!(obstacle(vec![node("CumSum", &["x", "zero"], &["y"])]).unwrap().contains("CumSum"));
    let norm = node("LayerNormalization", &["x"], &["y"]).with_int("axis", 0);
    assert!(obstacle(vec![norm]).unwrap().contains("LayerNormalization"));
}

#[test]
fn softmax_over_the_axis_that_a_squeeze_left_first_is_refused() {
    let nodes =
        |axis| vec![node("Squeeze", &["x"], &["s"]), node("Softmax", &["s"], &["y"]).with_int("axis", axis)];
    let check = |axis| {
        let mut graph = build_graph(&[Some(1), Some(4), Some(1), Some(1)], vec![], nodes(axis));
        let squeeze = find_open_squeeze(&graph);
        make_dynamic(&mut graph, "x");
        check_open_squeeze(squeeze.as_deref(), &graph, "x")
    };
    assert_eq!(check(-1), Ok(()));
    let error = check(0).unwrap_err();
    assert!(error.contains("Softmax \"y\"") && error.contains("Squeeze \"s\""), "{error}");
}

#[test]
fn padding_that_torch_computes_becomes_a_constant() {
    // torch lists the padding from the last axis to the first, and the exporter reverses the list.
    let nodes = vec![
        node("Reshape", &["padding", "pairs"], &["a"]),
        node("Slice", &["a", "last", "before_first", "axis", "backwards"], &["b"]),
        node("Transpose", &["b"], &["c"]).with_ints("perm", &[1, 0]),
        node("Reshape", &["c", "row"], &["pads"]),
        node("Pad", &["x", "pads"], &["y"]),
    ];
    let constants = vec![
        ints("padding", &[0, 1, 2, 3, 0, 0, 0, 0]),
        ints("pairs", &[-1, 2]),
        ints("last", &[-1]),
        ints("before_first", &[i64::MIN + 1]),
        ints("axis", &[0]),
        ints("backwards", &[-1]),
        ints("row", &[-1]),
    ];
    let graph = make_graph_dynamic(&IMAGE, constants, nodes);
    assert_eq!(operators(&graph), ["Pad"]);
    assert_eq!(integers(&graph, "pads"), [0, 0, 2, 0, 0, 0, 3, 1]);
    assert_eq!(find_obstacle(&graph, "x"), None);
}

#[test]
fn attention_mask_of_shifted_windows_becomes_a_constant() {
    // Region 1 is written into a list of zeros. Tokens of different regions do not attend to each other.
    let nodes = vec![
        node("ConstantOfShape", &["length"], &["zeros"]),
        node("ScatterND", &["zeros", "second_and_last", "ones"], &["regions"]),
        node("Unsqueeze", &["regions", "axis"], &["rows"]),
        node("Sub", &["regions", "rows"], &["differences"]),
        node("Equal", &["differences", "none"], &["is_same"]),
        node("Where", &["is_same", "none", "far"], &["mask"]),
        node("Add", &["x", "mask"], &["y"]),
    ];
    let constants = vec![
        ints("length", &[3]),
        int_tensor("second_and_last", &[2, 1], &[1, -1]),
        float_tensor("ones", &[2], &[1.0, 1.0]),
        ints("axis", &[1]),
        float_tensor("none", &[], &[0.0]),
        float_tensor("far", &[], &[-100.0]),
    ];
    let graph = make_graph_dynamic(&[Some(1), Some(8), Some(3), Some(3)], constants, nodes);
    assert_eq!(operators(&graph), ["Add"]);
    let expected = [0.0, -100.0, -100.0, -100.0, 0.0, 0.0, -100.0, 0.0, 0.0];
    assert_eq!(constant_values(&graph, "mask"), expected);
}

#[test]
fn resize_to_constant_sizes_gets_scales() {
    let resize = node("Resize", &["x", "", "", "sizes"], &["y"]).with_text("mode", "nearest");
    let graph = make_graph_dynamic(&IMAGE, vec![ints("sizes", &[1, 8, 14, 13])], vec![resize]);
    let scales = constant_values(&graph, &graph.node[0].input[2]);
    assert_eq!(scales[..3], [1.0, 1.0, 2.0]);
    assert!((7.0 * scales[3]).floor() == 13.0, "{scales:?}");
    assert_eq!(find_obstacle(&graph, "x"), None);
}
