"""Which column says what: the user's word first, else the names that logs usually have."""

from collections.abc import Iterable, Mapping, Sequence

from tesserec.config import nearest
from tesserec.errors import ConfigError, DataError

ROLES = {
    "user": "the user", "item": "the item", "time": "the time or place of an event", "rating": "the rating",
    "item_id": "the item's id in the table of items",
}  # fmt: skip

# In order of preference, compared without case, "_", "-" and blanks. An item table's id column has the names of "item".
USUAL: dict[str, tuple[str, ...]] = {
    "user": ("userid", "user", "reviewerid", "customerid", "visitorid", "memberid", "accountid", "uid", "sessionid"),
    "item": ("itemid", "item", "parentasin", "asin", "movieid", "productid", "articleid", "businessid", "bookid",
             "trackid", "newsid", "sku", "iid"),
    "time": ("timestamp", "unixreviewtime", "unixtime", "time", "eventtime", "datetime", "createdat", "date", "ts",
             "position", "order"),
    "rating": ("rating", "overall", "stars", "score"),
}  # fmt: skip


def parse_columns(pairs: Sequence[str]) -> dict[str, str]:
    """`("user=uid", "item=sku")` as role -> column.

    Raises:
        ConfigError: a pair is not of the form role=column, or there is no such role.
    """
    named: dict[str, str] = {}
    for pair in pairs:
        role, equals, column = (part.strip() for part in pair.partition("="))
        if not equals or not column:
            raise ConfigError(f"columns has {pair!r}. Write role=column, for instance user=customer_number.")
        if role not in ROLES:
            raise ConfigError(f"columns has {pair!r}, but there is no role {role!r}. {nearest(role, ROLES)}")
        named[role] = column
    return named


def usual_column(role: str, names: Iterable[str]) -> str | None:
    """The column that by its name plays a role, None if there is none."""
    plain = {"".join(char for char in name.lower() if char not in "_- "): name for name in reversed(list(names))}
    return next((plain[usual] for usual in USUAL[role] if usual in plain), None)


def event_columns(names: Sequence[str], named: Mapping[str, str], *, where: str) -> dict[str, str]:
    """Role -> column of a log; `time` and `rating` only where there is one.

    Raises:
        DataError: a named column does not exist, or none was named or found for the user or the item.
    """
    found = {}
    for role in USUAL:
        if role in named:
            found[role] = _existing(named[role], names, role, where)
        elif column := usual_column(role, names):
            found[role] = column
        elif role in ("user", "item"):
            raise _not_found(role, names, where)
    return found


def item_id_column(names: Sequence[str], named: Mapping[str, str], *, where: str) -> str:
    """The column of an item table that holds the ids; as `event_columns`."""
    if "item_id" in named:
        return _existing(named["item_id"], names, "item_id", where)
    column = named["item"] if named.get("item") in names else usual_column("item", names)
    if column is None:
        raise _not_found("item_id", names, where)
    return column


def _existing(column: str, names: Sequence[str], role: str, where: str) -> str:
    if column not in names:
        raise DataError(f"{where} has no column {column!r} (wanted for {ROLES[role]}). {_there_are(column, names)}")
    return column


def _there_are(column: str, names: Sequence[str]) -> str:
    listed = f"Its columns are {', '.join(map(repr, names))}."
    hint = nearest(column, names)
    return f"{hint} {listed}" if hint.startswith("Did") else listed


def _not_found(role: str, names: Sequence[str], where: str) -> DataError:
    headerless = any(name.replace(".", "", 1).isdigit() for name in names)
    return DataError(
        f"{where}: none of the columns {', '.join(map(repr, names))} is known to hold {ROLES[role]}. "
        f"Say which one does with --columns {role}=COLUMN (in Python: columns=('{role}=COLUMN',))."
        + (" If the file has no header line, give places: user=#1,item=#2." if headerless else "")
    )
