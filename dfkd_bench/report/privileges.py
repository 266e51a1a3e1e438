"""Names, marks and meanings of the privileges that a method declares (`method.Privileges`; a test compares both)."""

from __future__ import annotations

from collections.abc import Iterable

# privilege -> its mark in tables, its meaning
PRIVILEGES: dict[str, tuple[str, str]] = {
    "gradients": ("G", "back-propagates through the teacher to the images"),
    "bn_statistics": ("B", "running mean and variance of the teacher's BatchNorm layers"),
    "penultimate": ("P", "the teacher's features before its last linear layer"),
    "stage_maps": ("S", "feature maps inside the teacher"),
    "class_names": ("N", "what the classes are called"),
    "external_model": ("E", "another trained model (a text encoder, a diffusion model, ...)"),
    "unlabelled_data": ("U", "real images of any origin, without labels"),
    "real_data": ("R", "the task's own training set; only bounds may have it"),
}
NONE = "none"  # an empty declaration: the method uses the teacher's logits only
UNKNOWN = "?"  # the method's card cannot be read


def as_text(declared: Iterable[str] | None) -> str | None:
    """Privileges as text of a column: names joined by commas, `none`, or None if they are not known."""
    return None if declared is None else ",".join(declared) or NONE


def marks(text: str | None) -> str:
    """The short form of `as_text`, such as `GBP`; `-` for none, `?` for unknown."""
    if text is None:
        return UNKNOWN
    return "-" if text == NONE else "".join(PRIVILEGES.get(name, (UNKNOWN, ""))[0] for name in text.split(","))


def legend(texts: Iterable[str | None]) -> list[tuple[str, str]]:
    """(mark, name) of every mark that `marks` gives for `texts`, in the order of `PRIVILEGES`."""
    texts = list(texts)
    used = {name for text in texts if text for name in text.split(",")}
    entries = [(mark, name.replace("_", " ")) for name, (mark, _) in PRIVILEGES.items() if name in used]
    if NONE in used:
        entries.append(("-", "logits alone"))
    if None in texts or used - set(PRIVILEGES) - {NONE}:
        entries.append((UNKNOWN, "not known"))
    return entries
