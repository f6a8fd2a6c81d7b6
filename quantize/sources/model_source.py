"""Turn a checkpoint into the writer's input: all metadata and tensors, in the order of llama.cpp's converter."""

from quantize.source import ModelSource
from quantize.sources.checkpoint import Checkpoint
from quantize.sources.general_metadata import general_metadata
from quantize.sources.hparams import Hparams
from quantize.sources.hparams_metadata import hparams_metadata
from quantize.sources.tensor_map import map_tensors
from quantize.sources.tensor_names import is_text
from quantize.vocab.chat_evidence import template_note, trained_for_chat
from quantize.vocab.chat_template import has_template
from quantize.vocab.tokenizer import tokenizer_metadata
from quantize.wording import counted


def model_source(checkpoint: Checkpoint) -> ModelSource:
    """Map the text model of a checkpoint to a GGUF model; nothing but headers and tokenizer files is read.

    Raises Unsupported and CorruptFile, as named by the parts: hparams, tensor_map, vocab.
    """
    hparams = checkpoint.hparams
    tensors = map_tensors(checkpoint, hparams)
    n_vocab = next(tensor.shape[0] for tensor in tensors if tensor.name == "token_embd.weight")
    metadata = general_metadata(checkpoint, tensors, hparams.architecture)
    metadata |= hparams_metadata(hparams, n_vocab)
    for_chat = trained_for_chat(checkpoint, metadata)
    tokens = tokenizer_metadata(checkpoint, n_vocab, for_chat=for_chat)
    notes = (
        _vision_note(checkpoint, hparams),
        _window_note(hparams),
        template_note(checkpoint, metadata, tokens, has_template(checkpoint.folder)),
    )
    return ModelSource(
        metadata | tokens,
        tensors,
        checkpoint.fingerprint,
        checkpoint.sources,
        tuple(note for note in notes if note),
    )


def _window_note(hparams: Hparams) -> str | None:
    """Return what becomes of layers that look back to a part of the context only."""
    if hparams.window is None:
        return None
    return (
        f"layers of the model look back to {counted(hparams.window, 'token')}, but in llama.cpp they see all {hparams.n_ctx:,}: "
        "answers to longer texts differ from the original's"
    )


def _vision_note(checkpoint: Checkpoint, hparams: Hparams) -> str | None:
    """Return what becomes of the part of a model that sees images."""
    if not hparams.sees_images:
        return None
    n_left = sum(not is_text(name, hparams) for name in checkpoint.tensors)
    return f"the model sees images, but only its text model is converted: {counted(n_left, 'tensor')} of its vision part are skipped"
