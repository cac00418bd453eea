"""Fixed texts of pushes, such as "New message", in the language of a device."""

from chat_push.models import Texts


def translated(texts: Texts, source: str, count: int = 0) -> str:
    """The text in a language, or the English `source`. `count`: the number that decides about its plural form."""
    translation = texts.get(source)
    if translation is None:
        return source
    category = next(
        (
            category
            for category, ranges in translation.plurals.items()
            if any(first <= count < before for first, before in ranges)
        ),
        "other",
    )
    return translation.forms.get(category) or translation.forms.get("other") or source
