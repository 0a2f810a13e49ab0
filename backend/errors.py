"""The one error that is the user's to mend.

`InputError` is raised at the borders (command line, files, settings, wire) with a sentence that names what was given,
what was expected and what to do. The command line prints that sentence alone and exits with code 2; everything else is
a defect of ours and keeps its traceback. Every room of the backend may import this module and it imports nothing.
"""


class InputError(ValueError):
    """What was given cannot be used; the message is one or two plain sentences for the person who gave it."""
