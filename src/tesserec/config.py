"""From text to frozen dataclasses and back: one schema, unknown keys refused by name.

The dataclass beside each part is the only schema there is. This module reads its annotations, so that TOML files,
`--set` options and the configuration stored in a manifest go through the same check, also on a machine that
has nothing but torch and numpy (which is why this is not pydantic: see docs/decisions.md).
"""

import dataclasses
import difflib
import math
import tomllib
import types
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from tesserec.errors import ConfigError

Config = TypeVar("Config")


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for an unknown name: the closest known one, or else the whole list."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(names) or 'none'}."


def choose(name: str, registry: Mapping[str, Any], *, what: str) -> Any:
    """The registry's entry called `name`; `ConfigError` naming the nearest entry if there is none."""
    if not isinstance(name, str) or name not in registry:
        raise ConfigError(f"There is no {what} called {name!r}. {nearest(str(name), registry)}")
    return registry[name]


def build(config_class: type[Config], values: Mapping[str, Any], *, where: str) -> Config:
    """Make a config dataclass from plain values (TOML, JSON, strings of the command line).

    Args:
        config_class: a dataclass whose fields are bool, int, float, str, Literal, tuples of these, optionals, or
            dataclasses of the same kind.
        values: field name -> value; fields left out keep their default.
        where: the place to name in an error, such as `tokenizer` or `recipe.toml, [training]`.

    Raises:
        ConfigError: an unknown key (the nearest known one is named), a value of the wrong type, or out of range.
    """
    hints = get_type_hints(config_class)
    fields = {field.name for field in dataclasses.fields(config_class)}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            raise ConfigError(f"{where}: there is no setting {key!r}. {nearest(key, fields)}")
    return config_class(**{key: _convert(value, hints[key], f"{where}.{key}") for key, value in values.items()})


def parse_toml(content: bytes, source: str) -> dict[str, Any]:
    """The values in a recipe or a suite.

    Raises:
        ConfigError: it is not TOML in UTF-8; `source` is named.
    """
    try:
        return tomllib.loads(content.decode())
    except UnicodeDecodeError:
        raise ConfigError(f"{source} is not UTF-8 text. Convert it: iconv -f latin1 -t utf-8.") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source} is not valid TOML: {error}.") from None
    except RecursionError:
        raise ConfigError(f"{source} is nested too deeply. It has sections with settings, no more.") from None


def key_and_value(setting: str, *, example: str) -> tuple[str, str]:
    """`KEY=VALUE`, as `--set` takes it, apart.

    Raises:
        ConfigError: there is no `=` in it.
    """
    key, equals, value = setting.partition("=")
    if not equals:
        raise ConfigError(f"--set {setting!r} has no value. Write it as in {example}.")
    return key.strip(), value


def to_dict(config: Any) -> dict[str, Any]:
    """The whole configuration, defaults included, as plain JSON values."""
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def without_seeds(value: Any) -> Any:
    """Plain values less every entry called `seed`: what two of a kind have in common that differ in chance alone."""
    if isinstance(value, Mapping):
        return {key: without_seeds(entry) for key, entry in value.items() if key != "seed"}
    return value


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, (tuple, list)) else value


def _convert(value: Any, hint: Any, where: str) -> Any:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _convert_union(value, get_args(hint), where)
    if origin is Literal:
        if value not in get_args(hint):
            choices = ", ".join(repr(choice) for choice in get_args(hint))
            raise ConfigError(f"{where} is {value!r}. Use one of {choices}.")
        return value
    if origin is tuple:
        return _convert_tuple(value, get_args(hint), where)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, hint):
            return value
        if isinstance(value, Mapping):
            return build(hint, value, where=where)
    if hint is bool and isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if hint in (int, float) and not isinstance(value, bool):
        return _convert_number(value, hint, where)
    if isinstance(hint, type) and isinstance(value, hint):
        return value
    raise _wrong_type(value, hint, where)


def _convert_number(value: Any, hint: type[int] | type[float], where: str) -> int | float:
    """A finite float, or a whole number that 64 bits can hold; 1e3 is one, too."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise _wrong_type(value, hint, where) from None
    if not math.isfinite(number):
        raise _wrong_type(value, hint, where)
    if hint is float:
        return number
    if not number.is_integer() or abs(number) >= 2**63:
        raise _wrong_type(value, hint, where)
    try:
        return int(value)  # exactly, where a float would round
    except ValueError:
        return int(number)


def _convert_union(value: Any, choices: tuple[Any, ...], where: str) -> Any:
    if (value is None or value == "none") and types.NoneType in choices:
        return None
    for choice in choices:
        if choice is types.NoneType:
            continue
        try:
            return _convert(value, choice, where)
        except ConfigError as error:
            problem = error
    raise problem


def _convert_tuple(value: Any, entries: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{where} is {value!r}. Give a list, or values separated by commas.")
    return tuple(_convert(entry, entries[0], f"{where}[{index}]") for index, entry in enumerate(value))


def _wrong_type(value: Any, hint: Any, where: str) -> ConfigError:
    words = {int: "a whole number", float: "a finite number", bool: "true or false", str: "text"}
    return ConfigError(f"{where} is {value!r}. Give {words.get(hint, str(hint))}.")
