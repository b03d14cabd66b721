"""One color for each row, the same in tables, plots and samples."""

# Okabe and Ito (2008), which people with color blindness can tell apart, without black and yellow.
_FIRST = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#7f7f7f", "#b8a800")
_GOLDEN_ANGLE = 137.508  # degrees between one hue and the next, so that any number of hues is spread evenly


def colors(count: int) -> list[str]:
    """Return different colors that can be read on white and on black, as CSS writes them.

    Args:
        count: Their number.
    """
    more = [
        f"hsl({(20 + i * _GOLDEN_ANGLE) % 360:.1f} {70 - 25 * (i % 2)}% {50 + 10 * (i % 3 - 1)}%)"
        for i in range(count - len(_FIRST))
    ]
    return [*_FIRST[:count], *more]
