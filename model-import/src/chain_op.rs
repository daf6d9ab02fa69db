//! Generates the code of the custom operator that [`crate::graph::fuse`] puts into the graph.
//!
//! The operator runs a chain, a sequence of layers such as convolutions. The attribute `plan` of a node with
//! this operator is a Rust expression that lists the layers.
//!
//! For each such node, the generated struct `Model` has a field of type `fused::Chain`. That field does not
//! contain the chain's weights. They are a constant, the node's second input, and burn-onnx generates a
//! separate field for every constant. If `fused::Chain` contained the weights too, the program would have
//! them twice.

use burn_onnx::ext::proc_macro2::TokenStream;
use burn_onnx::ext::quote::{format_ident, quote};
use burn_onnx::ext::{
    ArgType, CodegenContext, CustomNode, CustomOp, DType, Field, ProcessError, TensorType, arg_to_ident,
};

use crate::graph::fuse::{CHAIN_OP, DOMAIN};

/// Generates a field of type `fused::Chain` and a call of the field's method `forward`.
pub(crate) struct ChainOp;

fn read_output_rank(node: &CustomNode) -> Result<usize, ProcessError> {
    let rank = node.attrs.get_i64("rank").and_then(|rank| usize::try_from(rank).ok());
    rank.ok_or_else(|| ProcessError::MissingAttribute("rank".into()))
}

impl CustomOp for ChainOp {
    fn op_type(&self) -> &str {
        CHAIN_OP
    }

    fn domain(&self) -> &str {
        DOMAIN
    }

    fn infer_output_types(&self, node: &CustomNode) -> Result<Vec<ArgType>, ProcessError> {
        let output = TensorType { dtype: DType::F32, rank: read_output_rank(node)?, static_shape: None };
        Ok(vec![ArgType::Tensor(output)])
    }

    fn forward(
        &self,
        node: &CustomNode,
        context: &mut CodegenContext<'_, '_>,
    ) -> Result<TokenStream, ProcessError> {
        let [input, weights] = [0, 1].map(|index| context.arg(&node.inputs[index]));
        let output = arg_to_ident(&node.outputs[0]);
        let (field, rank) = (format_ident!("{}", node.name), read_output_rank(node)?);
        Ok(quote! { let #output = self.#field.forward::<#rank>(#input, #weights); })
    }

    fn field(&self, node: &CustomNode) -> Result<Option<Field>, ProcessError> {
        let plan =
            node.attrs.get_string("plan").ok_or_else(|| ProcessError::MissingAttribute("plan".into()))?;
        let plan: TokenStream = plan.parse().map_err(|error| {
            ProcessError::Custom(format!("attribute `plan` is not a Rust expression: {error}"))
        })?;
        let field = format_ident!("{}", node.name);
        let init = quote! { let #field = fused::Chain::new(#plan); };
        Ok(Some(Field::new(&node.name, quote! { fused::Chain }, init)))
    }
}
