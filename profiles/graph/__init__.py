"""The dataflow of one micro-batch: which tensors llama.cpp computes, in which order, from which inputs, and how large they are."""
