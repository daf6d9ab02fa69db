//! Code generation for the operator that [`crate::graph::fuse`] puts into the graph.

use burn_onnx::ext::proc_macro2::TokenStream;
use burn_onnx::ext::quote::{format_ident, quote};
use burn_onnx::ext::{
    ArgType, CodegenContext, CustomNode, CustomOp, DType, Field, PackTensor, ProcessError, TensorType,
    arg_to_ident, create_deferred_tensor,
};

use crate::graph::fuse::{CHAIN, DOMAIN};

/// A field of type `fused::Chain`, and a call of its `forward`.
pub(crate) struct ChainOp;

/// The weights among the node's inputs.
const WEIGHTS: usize = 1;

fn rank(node: &CustomNode) -> Result<usize, ProcessError> {
    let rank = node.attrs.get_i64("rank").and_then(|rank| usize::try_from(rank).ok());
    rank.ok_or_else(|| ProcessError::MissingAttribute("rank".into()))
}

impl CustomOp for ChainOp {
    fn op_type(&self) -> &str {
        CHAIN
    }

    fn domain(&self) -> &str {
        DOMAIN
    }

    fn infer_output_types(&self, node: &CustomNode) -> Result<Vec<ArgType>, ProcessError> {
        let output = TensorType { dtype: DType::F32, rank: rank(node)?, static_shape: None };
        Ok(vec![ArgType::Tensor(output)])
    }

    fn forward(
        &self,
        node: &CustomNode,
        context: &mut CodegenContext<'_, '_>,
    ) -> Result<TokenStream, ProcessError> {
        let (input, output) = (context.arg(&node.inputs[0]), arg_to_ident(&node.outputs[0]));
        let (field, rank) = (format_ident!("{}", node.name), rank(node)?);
        Ok(quote! { let #output = self.#field.forward::<#rank>(#input); })
    }

    fn field(&self, node: &CustomNode) -> Result<Option<Field>, ProcessError> {
        let plan =
            node.attrs.get_string("plan").ok_or_else(|| ProcessError::MissingAttribute("plan".into()))?;
        let plan: TokenStream =
            plan.parse().map_err(|error| ProcessError::Custom(format!("plan: {error}")))?;
        let field = format_ident!("{}", node.name);
        let init = quote! { let #field = fused::Chain::new(#plan, device); };
        Ok(Some(Field::new(&node.name, quote! { fused::Chain }, init)))
    }

    fn collect_tensors(&self, node: &CustomNode, field: &str) -> Result<Vec<PackTensor>, ProcessError> {
        let weights = create_deferred_tensor(&node.inputs[WEIGHTS], &format!("{field}.weights"));
        weights.map(|weights| vec![weights]).ok_or_else(|| ProcessError::MissingInput("weights".into()))
    }
}
