"""The root of every error that is meant for the person at the keyboard.

QuietscopeError
├── stacks.StackError              also ValueError    a file or array that is no usable image stack
├── urls.UrlError                  also ValueError    a URL that cannot be opened here
├── outputs.OutputError            also RuntimeError  a place where results cannot be written
├── calibration.CalibrationError   also ValueError    light levels, noise models, fingerprints
├── inference.InferenceError       also RuntimeError  bundles, sessions, frames that do not fit
├── training.TrainingError         also RuntimeError  data, budgets, checkpoints, export
└── acquisition.AcquisitionError   also RuntimeError  the core, the camera, the stream

Each message is one line and says what was given, what was expected and what to do. The
command line prints that line and ends with status 1; anything else is a defect of ours.
"""


class QuietscopeError(Exception):
    """An error whose message is written for the user, in one line."""


def one_line(error: BaseException) -> str:
    """Return the message of any error in one line; its type's name where it has none."""
    return " ".join(str(error).split()) or type(error).__name__
