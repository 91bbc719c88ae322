"""Where media and captions come from: folders, tables, tars and Hugging Face data sets, all listed the same way."""

from nova.preparation.sources.listing import list_items
from nova.preparation.sources.options import SourceOptions

__all__ = ["SourceOptions", "list_items"]
