"""tesserec doctor"""

from tesserec.cli.output import Json, show


def doctor(as_json: Json = False) -> None:
    """What this installation runs on, what is missing, and how to get it."""
    from tesserec import environment
    from tesserec.tables import format_table

    found = environment.diagnosis()
    rows = [[name, _words(value)] for name, value in found["system"].items()]
    rows += [[name, value or "missing"] for name, value in found["required"].items()]
    for extra, versions in found["extras"].items():
        missing = [name for name, value in versions.items() if value is None]
        state = f"without {', '.join(missing)}. Run: {found['install'][extra]}" if missing else "installed"
        rows.append([f"[{extra}]", state])
    show(found, format_table(rows, align="l"), as_json=as_json)


def _words(value: object) -> str:
    if isinstance(value, dict):
        value = [part for part in value.values() if part]
    return (", ".join(map(str, value)) or "none") if isinstance(value, list) else str(value)
