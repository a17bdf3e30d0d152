"""Strports strings, taken apart without opening anything."""


def parse_strports(description: str) -> tuple[str, dict[str, str]]:
    r"""Take a `tcp:` or `ssl:` strports string apart, as Twisted does (`twisted.internet.endpoints`).

    A backslash hides the sign behind it, and the first bare argument is the port.
    """
    parts: list[list[str]] = [[""]]
    signs = iter(description)
    for sign in signs:
        if sign == ":":
            parts.append([""])
        elif sign == "=" and len(parts[-1]) == 1:
            parts[-1].append("")
        else:
            parts[-1][-1] += next(signs, "") if sign == "\\" else sign
    arguments = {name: value for name, *values in parts[1:] for value in values}
    bare = [part[0] for part in parts[1:] if len(part) == 1]
    if bare:
        arguments.setdefault("port", bare[0])
    return parts[0][0], arguments
