// The operators a bundle's graphs may use: those the CPU provider of the pinned runtime has and the importer emits. Data only.

export const KNOWN_OPERATORS: ReadonlySet<string> = new Set([
  ..."Abs Add Cast Clip Concat Conv Cos DepthToSpace Div Equal Gather GatherElements Gelu Gemm Greater Identity".split(
    " ",
  ),
  ..."LayerNormalization MatMul Max Mod Mul OneHot Pad Range ReduceL2 ReduceMax ReduceMean ReduceSum Relu Reshape Resize".split(
    " ",
  ),
  ..."ScatterElements Shape Sigmoid SimplifiedLayerNormalization Sin Slice Softmax Split Sqrt Squeeze Sub TopK Transpose".split(
    " ",
  ),
  ..."Unsqueeze Where com.microsoft:MoE com.microsoft:MultiHeadAttention com.microsoft:RotaryEmbedding".split(" "),
]);
