"""A checkpoint as the writer takes it: all metadata, all tensors, in the order of llama.cpp's converter."""

from quantize.checkpoint import Checkpoint
from quantize.general_metadata import general_metadata
from quantize.hparams_metadata import hparams_metadata
from quantize.source import ModelSource, u32
from quantize.tensor_map import map_tensors
from quantize.vocab import tokenizer_metadata


def model_source(checkpoint: Checkpoint) -> ModelSource:
    """Map a checkpoint to a GGUF model of architecture "llama"; nothing but headers and tokenizer files is read.

    Raises Unsupported and CorruptFile, as named by the parts: hparams, tensor_map, vocab.
    """
    hparams = checkpoint.hparams
    tensors = map_tensors(checkpoint, hparams)
    n_vocab = next(tensor.shape[0] for tensor in tensors if tensor.name == "token_embd.weight")
    metadata = general_metadata(checkpoint, tensors)
    metadata |= hparams_metadata(hparams)
    metadata["llama.vocab_size"] = u32(n_vocab)
    metadata["llama.rope.dimension_count"] = u32(hparams.head_size)
    metadata |= tokenizer_metadata(checkpoint, n_vocab)
    return ModelSource(metadata, tensors, checkpoint.fingerprint, checkpoint.all_files)
