"""SmolLM2."""

from tests.support.models import smol, smol_path

__all__ = ["smol", "smol_path"]
