"""Customers: the people whose data a tenant keeps."""

from domain.customers.fields import (
    COLUMN_OF,
    DOCUMENTS,
    FIELDS,
    SEARCHES,
    ExternalId,
    Guarded,
    Note,
    Profile,
    Stage,
)
from domain.customers.reach import is_everything, may_find
from domain.customers.reading import Direction, Filter, Order, SortField, count, find, get, get_many, page
from domain.customers.rights import CLEAR_WRITES, may_write
from domain.customers.rows import Batch, Customer, CustomerToken, CustomerView
from domain.customers.writing import MOST_AT_ONCE, archive, create, create_many, restore, update

__all__ = [
    "CLEAR_WRITES",
    "COLUMN_OF",
    "DOCUMENTS",
    "FIELDS",
    "MOST_AT_ONCE",
    "SEARCHES",
    "Batch",
    "Customer",
    "CustomerToken",
    "CustomerView",
    "Direction",
    "ExternalId",
    "Filter",
    "Guarded",
    "Note",
    "Order",
    "Profile",
    "SortField",
    "Stage",
    "archive",
    "count",
    "create",
    "create_many",
    "find",
    "get",
    "get_many",
    "is_everything",
    "may_find",
    "may_write",
    "page",
    "restore",
    "update",
]
