"""A model as every node of a cluster has it: by name in the node's own store, with the node's own plan."""

import hashlib
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import mixcli
from mixcli.client.held_host import Report
from mixcli.errors import MixcliError
from mixcli.host.protocol.errors import ErrorBody, error_body
from mixcli.planning.launch import identity, load
from mixcli.planning.load_options import LoadOptions

if TYPE_CHECKING:
    from mixcli.client.process import Host


class ClusterModel(NamedTuple):
    """The name of a model (None: each node's default), and the options of its load; it travels to the nodes."""

    name: str | None
    load_options: LoadOptions

    def load(self, isolation_key: str, report: Report) -> "Host":
        """Return the model of this node's store, loaded as this node's plan says; MixcliError where it cannot be."""
        return load(self.name, self.load_options, 0.0, isolation_key, report)

    def application(self, identity_: str) -> str:
        """Return the name of the application that serves these weights with these options by this version of mixcli."""
        label = re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(identity_.split(" ", maxsplit=1)[0]).name).strip("-")
        asked = json.dumps([identity_, asdict(self.load_options), mixcli.__version__], sort_keys=True)
        return f"mixcli-{label}-{hashlib.sha256(asked.encode()).hexdigest()[:8]}"


class NodeReport(NamedTuple):
    """What a node has: its version of mixcli, and the weights that a name means there."""

    version: str
    identity: str


def describe(model: ClusterModel) -> NodeReport | ErrorBody:
    """Return what this node has of a model, or why it cannot load it; nothing is loaded."""
    try:
        return NodeReport(mixcli.__version__, identity(model.name, model.load_options))
    except MixcliError as error:
        return error_body(error)[1]
