"""Load the model that drafts beside the one that answers."""

from mixcli.engine.draft_model import DraftModel
from mixcli.errors import MixcliError
from mixcli.host.protocol.host_spec import LoadPlan
from mixcli.llama.context import Context
from mixcli.llama.loading import Loaded
from mixcli.llama.model import Model


def load_drafter(order: LoadPlan, loaded: Loaded) -> DraftModel | None:
    """Return the draft model of a plan; None, which is noted, where it cannot be loaded: the large model answers without it too.

    A smaller plan that was loaded instead has none.
    """
    if order.draft is None or loaded.is_smaller:
        return None
    try:
        context = Context(Model.load(order.draft.path, order.draft.placement), order.draft.placement)
    except MixcliError as error:
        loaded.notes.append(f"no drafts: {error}")
        return None
    return DraftModel(context, loaded.model.vocab.n_tokens)
