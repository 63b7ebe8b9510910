"""Person re-identification with LA-Transformer: a small library behind its notebooks.

Read it in this order; each room imports only from rooms earlier in the list:

utils         where files live, seeds and versions, messages, several processes
data          folders of images -> a checked manifest -> batches; drawn data; cross-validation
losses        part cross-entropy, AM-Softmax, batch-hard triplet
models        images -> part features, logits and one embedding
training      optimises a model; knows nothing of re-identification
evaluation    embeddings -> ranks -> scores under named protocols, with intervals
experiments   configurations and studies; runs them and finds finished ones
figures       data frames and rankings -> figures
report        run records -> tables, statements, pages; runs the notebooks
cli           the command line

A notebook starts with ``open_study`` (01_data with ``load_study`` and ``prepare_study``).
"""

from importlib import import_module

__all__ = ["Experiment", "Workspace", "load_study", "open_study", "prepare_study"]
_HOME = {"Experiment": "experiments.runner", "Workspace": "utils.paths",
         "load_study": "experiments.study", "open_study": "experiments.runner",
         "prepare_study": "experiments.prepare"}


def __getattr__(name: str):
    """The names above, imported when they are asked for: torch alone takes seconds."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
