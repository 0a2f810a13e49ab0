"""The one error that is the artist's to mend."""


class SceneError(ValueError):
    """The scene does not allow what was asked; the message is one or two sentences that name what to do."""
