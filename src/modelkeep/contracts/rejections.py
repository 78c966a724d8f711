"""Why an uploaded version was refused: a code for programs, and a sentence that tells the uploader what to do."""

from enum import StrEnum

import msgspec


class Reason(StrEnum):
    """Codes of `rejected` versions; `ADVICE` has what to change for each."""

    TRUNCATED = "artifact_truncated"
    UNRECOGNISED = "content_unrecognised"
    MISMATCH = "format_mismatch"
    CORRUPT = "artifact_corrupt"
    ARCHIVE_REFUSED = "archive_refused"
    MISSING_DEPENDENCY = "missing_dependency"
    UNTRUSTED_TYPES = "untrusted_types"
    NOT_A_MODEL = "not_a_model"
    NOT_FITTED = "not_fitted"
    LOAD_FAILED = "load_failed"
    LOAD_TIMEOUT = "load_timeout"
    LOAD_CRASHED = "load_crashed"
    MEMORY_LIMIT = "memory_limit"
    NOT_CONFINED = "not_confined"
    SAMPLE_NEEDED = "sample_needed"
    SAMPLE_UNREADABLE = "sample_unreadable"
    SAMPLE_MISMATCH = "sample_mismatch"
    SIGNATURE_UNSUPPORTED = "signature_unsupported"
    PREPROCESS_MISMATCH = "preprocess_mismatch"
    LABELS_MISMATCH = "labels_mismatch"
    PREDICT_FAILED = "predict_failed"
    PREDICT_TIMEOUT = "predict_timeout"
    PREDICT_CRASHED = "predict_crashed"
    OUTPUT_INVALID = "output_invalid"
    CODE_REFUSED = "code_formats_off"
    VALIDATION_FAILED = "validation_failed"
    PROVIDER_MISMATCH = "provider_mismatch"
    CALIBRATION_UNUSABLE = "calibration_unusable"
    OPTIMISATION_MISSED = "optimisation_missed"
    HOOKS_UNUSABLE = "hooks_unusable"


ADVICE: dict[Reason, str] = {
    Reason.TRUNCATED: "The file ends too early. Save the model again, compare the sizes, and upload it once more.",
    Reason.UNRECOGNISED: (
        "The content is of no format served here. Save it as its framework does, or push it with its class: a folder with "
        "model.py."
    ),
    Reason.MISMATCH: "The content is of another format than the one declared. Rename the file or name the right format.",
    Reason.CORRUPT: "The stored bytes are not those that were uploaded. Upload the file again.",
    Reason.ARCHIVE_REFUSED: "The archive holds what no model needs. Push the folder itself: it is packed as it must be.",
    Reason.MISSING_DEPENDENCY: (
        "The model needs a package that is not installed here. Install it, bring its wheel with a Python class, or convert to "
        "ONNX."
    ),
    Reason.UNTRUSTED_TYPES: "The skops file holds types that are not trusted here. Use known estimators, or joblib.",
    Reason.NOT_A_MODEL: "The file loads, but what it holds cannot predict. Save the fitted model itself.",
    Reason.NOT_FITTED: "The estimator is not fitted. Call fit() before saving it.",
    Reason.LOAD_FAILED: "The file could not be loaded. Load it once where it was made, with the same package versions.",
    Reason.LOAD_TIMEOUT: "Loading took longer than validation allows. Make the model smaller, or raise the time limit.",
    Reason.LOAD_CRASHED: "The process died while loading the file, which is probably damaged. Save it again.",
    Reason.MEMORY_LIMIT: "The model needs more memory than a runner may use. Make it smaller, or raise the memory limit.",
    Reason.NOT_CONFINED: "This machine cannot lock such a model in. Ask for `modelkeep doctor` there, or convert to ONNX.",
    Reason.SAMPLE_NEEDED: "The artifact does not say what its inputs are. Upload it with a few sample rows.",
    Reason.SAMPLE_UNREADABLE: "The sample cannot be read. Send CSV with a header line, JSON rows, or a picture.",
    Reason.SAMPLE_MISMATCH: "The sample does not fit the model's inputs. Send rows with exactly the model's columns.",
    Reason.SIGNATURE_UNSUPPORTED: "Inputs or outputs are of a type that is not served. Change them where the model was made.",
    Reason.PREPROCESS_MISMATCH: "The picture preprocessing does not fit the model's input. Check size, layout and channels.",
    Reason.LABELS_MISMATCH: "There are not as many labels as the model has classes. Send one label a line, in class order.",
    Reason.PREDICT_FAILED: "The model raised an error on the sample. Predict with it where it was made, on the same rows.",
    Reason.PREDICT_TIMEOUT: "The model did not answer the sample in time. Look for an endless loop, or raise the time limit.",
    Reason.PREDICT_CRASHED: "The process died while the model worked on the sample. Try the model where it was made.",
    Reason.CODE_REFUSED: (
        "Files that can run code are not taken here any more. Convert the model to ONNX, or have an administrator allow them "
        "and upload it again."
    ),
    Reason.VALIDATION_FAILED: "Validation itself failed, not the model. Upload again; if it recurs, see the worker's log.",
    Reason.PROVIDER_MISMATCH: ("This machine does not run the model as was asked for. Name another way in `optimise`."),
    Reason.CALIBRATION_UNUSABLE: (
        "Send calibration rows as the sample is sent: the model's columns, finite numbers, 40 different rows or more; pictures "
        "in a ZIP."
    ),
    Reason.OPTIMISATION_MISSED: (
        "What `optimise` names cannot be had within the accuracy budget. Raise the budget, send more typical calibration rows, "
        "or leave the choice to `auto`."
    ),
    Reason.HOOKS_UNUSABLE: "The hooks cannot be used. Correct the file, import it once where it was written, and upload again.",
    Reason.OUTPUT_INVALID: "The model's answer cannot be served: it needs one numeric or text value, or a list of them, a row.",
}


class Rejection(msgspec.Struct, frozen=True):
    """A reason code, what to do about it, and what exactly was seen (no paths, no stack)."""

    code: Reason
    advice: str
    detail: str = ""


def reject(reason: Reason, detail: str = "") -> Rejection:
    """Return the rejection for `reason` with its standing advice and `detail`, the words of this case."""
    return Rejection(reason, ADVICE[reason], detail[:2000])
