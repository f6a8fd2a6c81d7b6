"""Turn a checkpoint into the writer's input: all metadata and tensors, in the order of llama.cpp's converter."""

from quantize.source import ModelSource, u32
from quantize.sources.checkpoint import Checkpoint
from quantize.sources.general_metadata import general_metadata
from quantize.sources.hparams_metadata import hparams_metadata
from quantize.sources.tensor_map import map_tensors
from quantize.vocab.chat_evidence import template_note, trained_for_chat
from quantize.vocab.chat_template import has_template
from quantize.vocab.tokenizer import tokenizer_metadata


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
    for_chat = trained_for_chat(checkpoint, metadata)
    tokens = tokenizer_metadata(checkpoint, n_vocab, for_chat=for_chat)
    note = template_note(checkpoint, metadata, tokens, has_template(checkpoint.folder))
    return ModelSource(
        metadata | tokens,
        tensors,
        checkpoint.fingerprint,
        checkpoint.all_files,
        (note,) if note else (),
    )
