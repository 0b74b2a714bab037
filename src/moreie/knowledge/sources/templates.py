"""Templates whose text is part of the sentence. Every other template is left out of a page's text."""

from __future__ import annotations

import regex

_DISAMBIGUATION = frozenset({"dab", "hndis", "geodis", "surname", "given name", "disamb", "dbig"})
_MONTHS = (
    "January February March April May June July August September October November December".split()  # noqa: SIM905
)
# Which positional argument holds the text.
_TEXT_ARGUMENT = {
    "nowrap": 1, "nobr": 1, "nobold": 1, "noitalic": 1, "small": 1, "smaller": 1, "big": 1, "larger": 1, "em": 1,
    "strong": 1, "abbr": 1, "abbrv": 1, "visible anchor": 1, "vanchor": 1, "lang": 2, "script": 2,
    "tooltip": 1, "ill": 1, "interlanguage link": 1, "ship": 2, "sclass": 1, "ussubs": 1,
    "sic": 1, "quote": 1, "blockquote": 1, "cquote": 1, "quotation": 1, "bquote": 1, "nihongo": 1, "korean": 1,
    "flag": 1, "flagcountry": 1, "flagu": 1, "sup": 1, "sub": 1, "math": 1, "mvar": 1, "var": 1, "val": 1, "nts": 1,
    "formatnum": 1, "sort": 2, "sortname": 1, "not a typo": 1, "proper name": 1, "angbr": 1, "linktext": 1,
    "hlist": 1, "dts": 1, "nastaliq": 1, "rtl-lang": 2, "lang-rtl": 2, "unicode": 1, "polytonic": 1,
    "langx": 2, "no wrap": 1, "resize": 2, "color": 2, "font color": 2, "font": 1, "wikt-lang": 2, "keypress": 1,
}  # fmt: skip
_WORD_BEFORE = {
    "circa": "c. ", "c.": "c. ", "ca.": "c. ", "floruit": "fl. ", "fl.": "fl. ", "us$": "US$", "usd": "US$", "gbp": "£",
    "a$": "A$", "c$": "C$", "euro": "€", "eur": "€", "inr": "₹", "£": "£", "€": "€", "uss": "USS ", "hms": "HMS ",
    "ss": "SS ", "rms": "RMS ", "hmas": "HMAS ", "hmcs": "HMCS ", "sms": "SMS ", "mv": "MV ", "nsb": "NSB ",
}  # fmt: skip
_CONSTANT = {
    "'": "'", "'s": "'s", "`": "ʻ", "okina": "ʻ", "snd": " – ", "spnd": " – ", "sndash": " – ", "spaced ndash": " – ",
    "ndash": "–", "en dash": "–", "mdash": "—", "em dash": "—", "dash": " – ", "spaced mdash": " — ", "nbsp": " ",
    "spaces": " ", "!": "|", "=": "=", "-": "\n\n", "clear": "\n\n", "pad": " ", "hair space": " ", "thinsp": " ",
    "·": " · ", "•": " • ", "bull": " • ", "dot": " · ", "ad": "AD ", "bce": " BCE", "bc": " BC", "ce": " CE",
    "number sign": "#", "minus": "−", "times": "×", "pi": "π", "sup2": "²", "degree": "°", "deg": "°",
}  # fmt: skip
_LAST_ARGUMENT = frozenset({"transl", "transliteration"})
_ACCIDENTALS = {"flat": "♭", "b": "♭", "sharp": "♯", "#": "♯", "natural": "♮"}
_DATES = frozenset({"start date", "end date", "birth date", "death date", "date", "birth date and age", "film date"})
_FRACTIONS = frozenset({"frac", "fraction", "sfrac"})
_CONVERSIONS = frozenset({"convert", "cvt"})
# {{convert}} without its unit system: between two numbers such a word is a range, not a unit.
_RANGES = {"to": " to ", "-": "–", "–": "–", "and": " and ", "x": " × ", "×": " × ", "by": " by ", "or": " or "}
_UNITS = {"sqmi": "sq mi", "sqft": "sq ft", "sqkm": "km²", "km2": "km²", "m2": "m²", "m3": "m³", "C": "°C", "F": "°F"}
_POWERS = {"e3": "thousand ", "e6": "million ", "e9": "billion "}
_INNERMOST = regex.compile(r"\{\{((?:[^{}]|\{(?!\{)|\}(?!\}))*)\}\}")
_NAMED = regex.compile(r"\s*([\w \-]{1,30})\s*=")
_SPLIT = regex.compile(r"\|(?![^\[\]]*\]\])")


def is_text(name: str) -> bool:
    """Does a template of this lower-cased name leave text in the sentence?"""
    return (
        name in _TEXT_ARGUMENT
        or name in _CONSTANT
        or name in _WORD_BEFORE
        or name in _CONVERSIONS
        or name in _FRACTIONS
        or name in _DATES
        or name in _LAST_ARGUMENT
        or name == "music"
        or name.startswith(("lang-", "formatnum:", "as of"))
    )


def is_infobox(name: str) -> bool:
    return "infobox" in name or name.startswith(("taxobox", "speciesbox", "automatic taxobox", "chembox", "drugbox"))


def is_disambiguation(name: str) -> bool:
    return "disambig" in name or name in _DISAMBIGUATION


def expand(wikitext: str) -> str:
    """`wikitext` with each text template replaced by its text, the innermost first; others vanish."""
    while "{{" in wikitext:
        wikitext, count = _INNERMOST.subn(lambda match: _text(match.group(1)), wikitext)
        if not count:
            break
    return wikitext


def arguments(body: str) -> tuple[str, list[str], dict[str, str]]:
    """Name, positional arguments and named arguments of what stands between a template's braces."""
    name, *parts = _SPLIT.split(body)
    positional: list[str] = []
    named: dict[str, str] = {}
    for part in parts:
        if match := _NAMED.match(part):
            key, value = match.group(1).strip().lower(), part[match.end() :].strip()
            if key.isdigit() and int(key) == len(positional) + 1:
                positional.append(value)
            else:
                named[key] = value
        else:
            positional.append(part.strip())
    return name.strip().replace("_", " "), positional, named


def _text(body: str) -> str:
    name, values, named = arguments(body)
    lowered = name.lower()
    if lowered in _CONSTANT:
        return _CONSTANT[lowered] + "".join(values[:1] if lowered == "ad" else [])
    if lowered.startswith("formatnum:"):
        return name[len("formatnum:") :].strip()
    if lowered in _CONVERSIONS:
        return _conversion(values)
    if lowered in _FRACTIONS:
        return _fraction(values)
    if lowered in _DATES:
        return _date(values)
    if lowered.startswith("as of"):
        return f"{'as' if named.get('lc') else 'As'} of {_date(values)}"
    if lowered in _WORD_BEFORE:
        return _WORD_BEFORE[lowered] + "".join(values[:1])
    position = _TEXT_ARGUMENT.get(lowered, 1 if lowered.startswith("lang-") else 0)
    if lowered in _LAST_ARGUMENT:
        return values[-1] if len(values) > 1 else ""
    if lowered == "music":
        return _ACCIDENTALS.get(values[0], values[0]) if values else ""
    if lowered == "sic":
        return f"{values[0]} [sic]" if values and values[0] else "[sic]"
    if lowered == "sortname":
        return " ".join(values[:2])
    if lowered == "hlist":
        return " · ".join(values)
    if lowered == "ship":
        return " ".join(values[:2])
    if lowered in ("quote", "blockquote", "quotation", "cquote", "bquote"):
        words, *author = values or [named.get("text", named.get("quote", ""))]
        by = next(filter(None, [*author, named.get("author", ""), named.get("sign", "")]), "")
        return f"\n{words}{' — ' + by if by else ''}\n"
    return values[position - 1] if 0 < position <= len(values) else named.get("text", "") if position else ""


def _conversion(values: list[str]) -> str:
    if len(values) >= 4 and values[1] in _RANGES:
        return f"{values[0]}{_RANGES[values[1]]}{values[2]} {_unit(values[3])}"
    if len(values) >= 4 and values[0] and values[2].isdigit() and not values[1].isdigit():
        return " ".join(values[:4])  # 5 ft 10 in
    return f"{values[0]} {_unit(values[1])}" if len(values) > 1 else "".join(values)


def _unit(code: str) -> str:
    power = _POWERS.get(code[:2], "")
    return power + _UNITS.get(code[2:] if power else code, code[2:] if power else code)


def _fraction(values: list[str]) -> str:
    if len(values) == 3:
        return f"{values[0]} {values[1]}/{values[2]}"
    return "/".join(values) if len(values) == 2 else f"1/{values[0]}" if values else ""


def _date(values: list[str]) -> str:
    numbers = [int(value) for value in values[:3] if value.isdigit()]
    if len(numbers) == 3 and 1 <= numbers[1] <= 12:
        return f"{numbers[2]} {_MONTHS[numbers[1] - 1]} {numbers[0]}"
    if len(numbers) == 2 and 1 <= numbers[1] <= 12:
        return f"{_MONTHS[numbers[1] - 1]} {numbers[0]}"
    return str(numbers[0]) if numbers else " ".join(values[:1])
