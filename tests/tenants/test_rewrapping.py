"""Every column that holds a wrapped key is known to whoever turns over the key it is wrapped by."""

from sqlalchemy import CheckConstraint

from domain import tables
from tenants.keys.rewrapping import WRAPPED, is_older
from tenants.owned import TenantOwned


def test_every_column_of_wrapped_keys_is_rewrapped() -> None:
    tables.load()
    checked = {
        (table.name, str(constraint.sqltext).split()[0])
        for table in TenantOwned.metadata.tables.values()
        for constraint in table.constraints
        if isinstance(constraint, CheckConstraint) and "LIKE 'vault:v" in str(constraint.sqltext)
    }
    assert checked == {(column.class_.__tablename__, column.key) for column in WRAPPED}


def test_one_older_key_anywhere_is_older() -> None:
    counts = {"data_keys.wrapped": {"10": 3}, "backups.wrapped_key": {"9": 1, "10": 4}}
    assert is_older(counts, 10)
    assert not is_older(counts, 9)
    assert not is_older({"data_keys.wrapped": {}}, 9)
