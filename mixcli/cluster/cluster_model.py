"""A model as every node of a cluster has it: by name in the node's own store, with the node's own plan."""

import hashlib
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import mixcli
from mixcli.client.held_host import Report
from mixcli.errors import MixcliError, UsageError
from mixcli.host.protocol.errors import ErrorBody, error_body
from mixcli.planning.launch import installed, load
from mixcli.planning.load_options import LoadOptions
from mixcli.store.weights import Weights, weights_of

if TYPE_CHECKING:
    from mixcli.client.process import Host


class ClusterModel(NamedTuple):
    """The name of a model (None: each node's default), and the options of its load; it travels to the nodes."""

    name: str | None
    load_options: LoadOptions

    def load(self, isolation_key: str, report: Report) -> "Host":
        """Return the model of this node's store, loaded as this node's plan says; MixcliError where it cannot be."""
        return load(self.name, self.load_options, 0.0, isolation_key, report)

    def application(self, weights: Weights) -> str:
        """Return the name of the application that serves these weights with these options by this version of mixcli."""
        label = re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(weights.label).name).strip("-")
        asked = json.dumps([str(weights), asdict(self.load_options), mixcli.__version__], sort_keys=True)
        return f"mixcli-{label}-{hashlib.sha256(asked.encode()).hexdigest()[:8]}"


class NodeReport(NamedTuple):
    """What a node has: its version of mixcli, and the weights that a name means there."""

    version: str
    weights: Weights

    def check_same(self, there: "NodeReport") -> None:
        """Raise UsageError where a node that has joined later has something else."""
        if there.version != self.version:
            raise UsageError(f"mixcli {there.version} instead of {self.version}; install the same version")
        if differences := self.weights.differences(there.weights):
            raise UsageError(
                f"other weights of {self.weights.label} than the first nodes: {', '.join(differences)}; copy or pull the same files"
            )


def own_report(model: ClusterModel) -> NodeReport:
    """Return what this node has of a model; MixcliError where it cannot load it. Nothing is loaded."""
    return NodeReport(mixcli.__version__, weights_of(installed(model.name, model.load_options)))


def describe(model: ClusterModel) -> NodeReport | ErrorBody:
    """Return what this node has of a model, or why it cannot load it; nothing is loaded."""
    try:
        return own_report(model)
    except MixcliError as error:
        return error_body(error)[1]
