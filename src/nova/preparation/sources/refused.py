"""How the parts of a source say no: an exception that becomes a refusal where the item's id is known."""

from __future__ import annotations

from nova.preparation.items import Reason, Refusal


class RefusedError(Exception):
    """Something cannot be used. `detail` is one printable line; `column` is the table's column that is to blame."""

    def __init__(self, reason: Reason, detail: str, column: str | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.column = column

    def about(self, id: str, path: str, place: str = "") -> Refusal:
        """The refusal of the item `id`; `place` is where in a table it stands."""
        return Refusal(id, path, self.reason, f"{place}: {self.detail}" if place else self.detail)
