"""Parse strports strings without opening anything."""


def parse_strports(description: str) -> tuple[str, dict[str, str]]:
    r"""Parse a `tcp:` or `ssl:` strports string as Twisted does (`twisted.internet.endpoints`).

    A backslash escapes the next character. The first argument without a name is the port.

    :return: the kind, and the arguments by name.
    """
    parts: list[list[str]] = [[""]]
    characters = iter(description)
    for character in characters:
        if character == ":":
            parts.append([""])
        elif character == "=" and len(parts[-1]) == 1:
            parts[-1].append("")
        else:
            parts[-1][-1] += next(characters, "") if character == "\\" else character
    arguments = {name: value for name, *values in parts[1:] for value in values}
    unnamed = [part[0] for part in parts[1:] if len(part) == 1]
    if unnamed:
        arguments.setdefault("port", unnamed[0])
    return parts[0][0], arguments
