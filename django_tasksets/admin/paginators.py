"""Pages of lists that may be long: nothing here counts more rows than it must."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.paginator import Page, Paginator
from django.utils.functional import cached_property

if TYPE_CHECKING:
    _Paginator = Paginator[Any]
else:
    _Paginator = Paginator

CAP = 10_000


class CappedPaginator(_Paginator):
    """Counts no further than the cap; what lies beyond it is not listed."""

    @cached_property
    def _counted(self) -> int:
        rows: Any = self.object_list
        return int(rows.order_by()[: CAP + 1].count())

    @cached_property
    def count(self) -> int:
        """How many rows are listed."""
        return min(self._counted, CAP)

    @property
    def is_capped(self) -> bool:
        """Whether there are more rows than are listed."""
        return self._counted > CAP


class CountedPaginator(CappedPaginator):
    """Somebody knows how many rows there are: no row is counted."""

    def __init__(self, *args: Any, count: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._known = count

    @cached_property
    def count(self) -> int:
        """How many rows there are."""
        return self._known

    @property
    def is_capped(self) -> bool:
        """All are listed."""
        return False

    def page(self, number: int | str) -> Page[Any]:
        """The rows of the page; in the second half they are reached from the end."""
        number = self.validate_number(number)
        first = (number - 1) * self.per_page
        last = min(first + self.per_page, self.count)
        if first <= self.count // 2:
            return Page(self.object_list[first:last], number, self)
        rows: Any = self.object_list
        backwards = list(rows.reverse()[self.count - last : self.count - first])
        return Page(backwards[::-1], number, self)


class OrdinalPaginator(CountedPaginator):
    """Rows with dense positions from 0: a page is a range of them, the last as near as the first.

    An OFFSET would walk over all rows before the page.
    """

    def page(self, number: int | str) -> Page[Any]:
        """The rows of the page, by their positions."""
        number = self.validate_number(number)
        first = (number - 1) * self.per_page
        rows: Any = self.object_list
        positions = {"position__gte": first, "position__lt": first + self.per_page}
        return Page(rows.filter(**positions), number, self)
