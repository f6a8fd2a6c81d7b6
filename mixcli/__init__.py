"""mixcli: Mixtral and the Mistral family on the machine you already own."""

__version__ = "0.1.0"
