"""Product pictures for a shop that has none: a coloured tile per item, the same for ever."""

import colorsys
import hashlib
import html
import re
from typing import Final

ID_CHARACTERS: Final = 200
_SHAPES: Final = (
    '<rect x="96" y="84" width="128" height="128" rx="28"/>',
    '<circle cx="160" cy="148" r="70"/>',
    '<path d="M160 72 L236 212 H84 Z" stroke-width="24" stroke-linejoin="round"/>',
    '<rect x="114" y="68" width="92" height="160" rx="44"/>',
    '<path d="M160 70 L238 148 L160 226 L82 148 Z" stroke-width="20" stroke-linejoin="round"/>',
    '<ellipse cx="160" cy="148" rx="92" ry="58"/>',
)


def picture(item: str) -> str:
    """Draw an item as SVG: colours and shape from a hash of its id, the end of the id as its initials."""
    digest = hashlib.sha256(item.encode("utf-8", "surrogatepass")).digest()
    hue = int.from_bytes(digest[:2], "big") / 65536
    paper, ink = _colour(hue, 0.90, 0.55), _colour(hue, 0.42, 0.50)
    shape = _SHAPES[digest[2] % len(_SHAPES)]
    label = html.escape(_initials(item))
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 320 320" width="320" height="320" role="img">'
        f'<rect width="320" height="320" fill="{paper}"/>'
        f'<g fill="{ink}" stroke="{ink}" stroke-width="0" opacity="0.85">{shape}</g>'
        f'<text x="160" y="284" text-anchor="middle" font-family="Helvetica,Arial,sans-serif" font-size="36" '
        f'font-weight="700" fill="{ink}">{label}</text></svg>'
    )


def _initials(item: str) -> str:
    words = re.findall(r"[^\W_]+", item[:ID_CHARACTERS])
    return words[-1][-6:].upper() if words else "?"


def _colour(hue: float, lightness: float, saturation: float) -> str:
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, saturation)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"
